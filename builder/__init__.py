"""Turns a trained encoder into the graph, and later the engine, that the device runs."""
