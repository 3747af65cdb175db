"""Alerts carried on to other systems: `core` is what all bridges share, each other module leads to one kind."""
