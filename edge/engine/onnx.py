"""Runs the graph in ONNX Runtime on the CPU: the default back end, and the reference for all others."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnxruntime as ort

from edge.bundle import GRAPH, Bundle
from edge.engine import Staging
from edge.errors import EngineError, HaadError, command
from edge.skeleton import Float

DEPTH = 2


class OnnxEngine:
    """The exported graph in one inference session. `submit` runs it in a worker thread, without Python's lock.

    It computes in `threads` threads, which do not spin while they wait, since the machine is shared.
    """

    fallbacks, categories = 0, None

    def __init__(self, bundle: Bundle, *, max_batch: int, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(bundle.read(GRAPH), options, providers=["CPUExecutionProvider"])
        except HaadError:
            raise
        except Exception as e:
            raise EngineError(
                f"{bundle.root}: ONNX Runtime {ort.__version__} refuses the graph",
                why=str(e)[:300],
                fix=command("build", bundle.root, "--target", "onnx"),
            ) from None
        self.name = f"onnxruntime-{ort.__version__}"
        self._free = deque(Staging.empty(max_batch, bundle.manifest.frames) for _ in range(DEPTH))
        self._pending: deque[tuple[Staging, Future[list[Float]]]] = deque()
        self._worker = ThreadPoolExecutor(1, "onnx")
        self.bind(np.zeros((1, 1, bundle.manifest.embedding), np.float32), np.ones((1, 1), np.float32))

    @property
    def staging(self) -> Staging:
        """See `Engine.staging`."""
        return self._free[0] if self._free else self._pending[0][0]

    @property
    def pending(self) -> int:
        """See `Engine.pending`."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """See `Engine.full`."""
        return not self._free

    @property
    def ready(self) -> bool:
        """See `Engine.ready`."""
        return bool(self._pending) and self._pending[0][1].done()

    def admit(self, support: Float) -> None:
        """See `Engine.admit`: there is room for any support set."""

    def bind(self, support: Float, mask: Float) -> None:
        """See `Engine.bind`. The arrays are used without a copy: do not change them afterwards."""
        self._support = {
            "support": np.ascontiguousarray(support, np.float32),
            "support_mask": np.ascontiguousarray(mask, np.float32),
        }

    def run(self, n: int) -> tuple[Float, Float]:
        """See `Engine.run`. Computes in the caller's thread."""
        embedding, distance = self._compute(self.staging, n, self._support, "embedding", "distance")
        return embedding, distance

    def submit(self, n: int) -> None:
        """See `Engine.submit`."""
        if self.full:
            raise RuntimeError("collect a result before another batch is submitted")
        staging = self._free.popleft()
        self._pending.append((staging, self._worker.submit(self._compute, staging, n, self._support, "distance")))

    def collect(self) -> Float:
        """See `Engine.collect`."""
        staging, result = self._pending.popleft()
        self._free.append(staging)
        return result.result()[0]

    def close(self) -> None:
        """See `Engine.close`. The session is freed with the object."""
        self._worker.shutdown()

    def _compute(self, staging: Staging, n: int, support: dict[str, Float], *wanted: str) -> list[Float]:
        feed = {"joints": staging.joints[:n], "visible": staging.visible[:n], **support}
        try:
            found: list[Float] = self._session.run(list(wanted), feed)
        except Exception as e:
            raise EngineError("ONNX Runtime failed on a batch", why=str(e)[:300]) from None
        return found
