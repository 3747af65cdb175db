"""The device side: pose frames in over ZeroMQ, alerts out. Never imports torch, trainer or builder."""

import os

__version__ = "0.1.0"

# ONNX Runtime reads it when it is loaded: without it, it reports to its maker over the network from 1.32 on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
