"""Turns a trained encoder into the graph that the device runs, and the graph into engines."""
