"""Forwards alerts to other systems: `core` is what all bridges share, each other module one kind of receiver."""
