"""Measurements, each a module to run; what they found lies in `results/`, under the machine's name."""
