"""The seam between the loop and whatever computes: `Engine`. Back ends are chosen by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.bundle import Bundle
from edge.errors import EngineError
from edge.skeleton import Float, J


@dataclass(frozen=True, slots=True)
class Staging:
    """The engine's input buffers, filled in place by the caller: joints (N, T, 15, 3), visible (N, T, 15)."""

    joints: Float
    visible: Float

    @property
    def size(self) -> int:
        return len(self.joints)

    @classmethod
    def empty(cls, size: int, frames: int) -> Staging:
        return cls(np.zeros((size, frames, J, 3), np.float32), np.zeros((size, frames, J), np.float32))


class Engine(Protocol):
    """Runs the graph on the first `n` windows of its own staging buffers, against a bound support set."""

    name: str
    """Back end and version, as results name it."""
    staging: Staging

    def bind(self, support: Float, mask: Float) -> None:
        """Use support (G, K, D) and mask (G, K) from the next `run` on."""

    def run(self, n: int) -> tuple[Float, Float]:
        """embedding (n, D) and distance (n, G). Raises EngineError when the device is lost."""


def open_engine(bundle: Bundle, name: str = "onnx", *, max_batch: int = 64, threads: int = 1) -> Engine:
    """Open a back end for the bundle, or raise EngineError saying what is missing."""
    if name == "onnx":
        from edge.engine.onnx import OnnxEngine

        return OnnxEngine(bundle, max_batch=max_batch, threads=threads)
    raise EngineError(f"no engine called {name!r}", why="this version runs 'onnx'", fix="set engine: onnx")


def run_all(engine: Engine, joints: Float, visible: Float) -> tuple[Float, Float]:
    """embedding (N, D) and distance (N, G) of any number of windows, through the engine's staging in turns."""
    size, parts = engine.staging.size, []
    for i in range(0, len(joints), size):
        n = min(size, len(joints) - i)
        engine.staging.joints[:n] = joints[i : i + n]
        engine.staging.visible[:n] = visible[i : i + n]
        embedding, distance = engine.run(n)
        parts.append((embedding.copy(), distance.copy()))
    return np.concatenate([e for e, _ in parts]), np.concatenate([d for _, d in parts])


def embed(engine: Engine, joints: Float, visible: Float) -> Float:
    """Embeddings (N, D), N ≥ 1."""
    return run_all(engine, joints, visible)[0]
