"""Measures the engine (`haad-edge bench`): simulated cameras in one process, the real engine in another."""
