"""The device side: pose frames in over ZeroMQ, alerts out. Never imports torch, trainer or builder."""

__version__ = "0.1.0"
