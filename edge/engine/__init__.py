"""The seam between the loop and whatever computes: `Engine`. Back ends are chosen by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge.bundle import Bundle
from edge.errors import EngineError
from edge.settings import ENGINES
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
    """Runs the graph on the first `n` windows of its own staging buffers, against a bound support set.

    `run` is the whole of it for a caller that waits. One that does not fills `staging`, calls `submit`, collects when
    `ready` or `full`, and looks at `staging` anew. What was submitted stays in its buffer until that is filled again.
    What comes back is the caller's own, and no later batch changes it.
    """

    @property
    def name(self) -> str:
        """Back end and version, as results name it. It changes when another engine takes over."""

    @property
    def staging(self) -> Staging:
        """The buffers to fill. `run` leaves them in their place; after `submit` they may be others."""

    @property
    def full(self) -> bool:
        """Whether a result must be collected before `staging` may be filled again."""

    @property
    def ready(self) -> bool:
        """Whether `collect` would not wait."""

    @property
    def pending(self) -> int:
        """Batches submitted and not collected."""

    @property
    def fallbacks(self) -> int:
        """How often another engine had to take over, the start included."""

    @property
    def categories(self) -> int | None:
        """How many categories, and pairs of them, a support set may have; None: any number."""

    def admit(self, support: Float) -> None:
        """Raises EngineError where there is no room for a support set (G, K, D). May be asked from any thread."""

    def bind(self, support: Float, mask: Float) -> None:
        """Use support (G, K, D) and mask (G, K) from the next batch on. What `admit` refuses, this refuses."""

    def run(self, n: int) -> tuple[Float, Float]:
        """embedding (n, D) and distance (n, G) of `staging`, which stays the buffer to fill. Not for a full engine.

        Raises EngineError, with `lost` set when the device is gone.
        """

    def submit(self, n: int) -> None:
        """Start on the first `n` windows of `staging`."""

    def collect(self) -> Float:
        """The oldest submitted batch's distance (n, G); embeddings are for `run` alone."""

    def close(self) -> None:
        """Give back what it holds."""


def open_engine(bundle: Bundle, name: str = "onnx", *, max_batch: int = 64, threads: int = 1) -> Engine:
    """Open one back end for the bundle, or raise EngineError saying what is missing."""
    if name == "onnx":
        from edge.engine.onnx import OnnxEngine

        return OnnxEngine(bundle, max_batch=max_batch, threads=threads)
    if name == "tensorrt":
        from edge.engine.tensorrt import open_tensorrt

        return open_tensorrt(bundle, max_batch=max_batch)
    raise EngineError(f"no engine called {name!r}", why=f"there are {', '.join(ENGINES)}", fix="set engine: onnx")


def run_all(engine: Engine, joints: Float, visible: Float, size: int = 0) -> tuple[Float, Float]:
    """embedding (N, D) and distance (N, G) of any number of windows, through the engine's staging in turns.

    `size`: at most so many at a time; 0: as many as there is room for.
    """
    size, parts = min(size or engine.staging.size, engine.staging.size), []
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
