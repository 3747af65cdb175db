"""Turns scores into alerts, and records for each one why it was raised, when, and for which movement."""
