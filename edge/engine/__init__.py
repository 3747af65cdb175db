"""Defines `Engine`, the interface between the loop and the inference back ends, and opens a back end by name."""

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

    A caller that waits needs only `run`. One that does not wait fills `staging`, calls `submit`, collects when `ready`
    or `full`, and gets `staging` anew to fill it. What was submitted stays in its buffer until that is filled again.
    Results belong to the caller: no later batch changes them.
    """

    @property
    def name(self) -> str:
        """Back end and version, as shown in results. It changes when another engine takes over."""

    @property
    def staging(self) -> Staging:
        """The buffers to fill. They are the same after `run`, but may be others after `submit`."""

    @property
    def full(self) -> bool:
        """Whether a result must be collected before `staging` may be filled again."""

    @property
    def ready(self) -> bool:
        """Whether `collect` would not wait."""

    @property
    def pending(self) -> int:
        """How many batches are submitted and not collected."""

    @property
    def fallbacks(self) -> int:
        """How often another engine had to take over, including at the start."""

    @property
    def categories(self) -> int | None:
        """The most categories, including pairs of them, that a support set may have; None: any number."""

    def admit(self, support: Float) -> None:
        """Raises EngineError if there is no room for a support set (G, K, D). May be called from any thread."""

    def bind(self, support: Float, mask: Float) -> None:
        """Use support (G, K, D) and mask (G, K) from the next batch on. Refuses what `admit` refuses."""

    def run(self, n: int) -> tuple[Float, Float]:
        """embedding (n, D) and distance (n, G) of `staging`, which stays the buffer to fill. Not for a `full` engine.

        Raises EngineError, with `lost` set if the device is gone.
        """

    def submit(self, n: int) -> None:
        """Start computing the first `n` windows of `staging`."""

    def collect(self) -> Float:
        """distance (n, G) of the oldest submitted batch. Only `run` gives embeddings."""

    def close(self) -> None:
        """Release all resources."""


def open_engine(bundle: Bundle, name: str = "onnx", *, max_batch: int = 64, threads: int = 1) -> Engine:
    """Open one back end for the bundle. Raises EngineError, saying what is missing."""
    if name == "onnx":
        from edge.engine.loading import check_loading

        check_loading()
        from edge.engine.onnx import OnnxEngine

        return OnnxEngine(bundle, max_batch=max_batch, threads=threads)
    if name == "tensorrt":
        from edge.engine.tensorrt import open_tensorrt

        return open_tensorrt(bundle, max_batch=max_batch)
    raise EngineError(f"no engine called {name!r}", why=f"there are {', '.join(ENGINES)}", fix="set engine: onnx")


def run_all(engine: Engine, joints: Float, visible: Float, size: int = 0) -> tuple[Float, Float]:
    """embedding (N, D) and distance (N, G) of any number of windows, batch by batch through the engine's staging.

    `size`: the most windows in a batch; 0: as many as there is room for.
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
