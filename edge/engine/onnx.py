"""ONNX Runtime on the CPU: the default back end, and the reference for every other."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from edge.bundle import GRAPH, Bundle
from edge.engine import Staging
from edge.errors import EngineError
from edge.skeleton import Float


class OnnxEngine:
    """The exported graph in one inference session. One thread, no spinning: it shares the machine."""

    def __init__(self, bundle: Bundle, *, max_batch: int, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(bundle.read(GRAPH), options, providers=["CPUExecutionProvider"])
        except Exception as e:
            if isinstance(e, EngineError) or type(e).__module__.startswith("edge"):
                raise
            raise EngineError(
                f"{bundle.root}: ONNX Runtime {ort.__version__} refuses the graph",
                why=str(e)[:300],
                fix=f"haad-edge build {bundle.root} --target onnx",
            ) from None
        self.name = f"onnxruntime-{ort.__version__}"
        self.staging = Staging.empty(max_batch, bundle.manifest.frames)
        self.bind(np.zeros((1, 1, bundle.manifest.embedding), np.float32), np.ones((1, 1), np.float32))

    def bind(self, support: Float, mask: Float) -> None:
        """See `Engine.bind`. The arrays are used as they are: do not change them afterwards."""
        self._support = {
            "support": np.ascontiguousarray(support, np.float32),
            "support_mask": np.ascontiguousarray(mask, np.float32),
        }

    def run(self, n: int) -> tuple[Float, Float]:
        """See `Engine.run`."""
        feed = {"joints": self.staging.joints[:n], "visible": self.staging.visible[:n], **self._support}
        try:
            embedding, distance = self._session.run(["embedding", "distance"], feed)
        except Exception as e:
            raise EngineError("ONNX Runtime failed on a batch", why=str(e)[:300]) from None
        return embedding, distance
