"""The package for the device: pose frames in over ZeroMQ, alerts out. Never imports torch, trainer or builder."""

import os

__version__ = "0.1.0"

# ONNX Runtime reads this when it is loaded. Without it, version 1.32 and later report to their maker over the network.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
