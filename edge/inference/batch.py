"""Stages windows in the engine's own input buffers, and describes a batch that the engine is working on.

slots ─gather─► Batch (one of the engine's buffers) ─take─► InFlight ─► engine ─► Dispatch
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.engine import Engine, Staging
from edge.skeleton import Float
from edge.windows import Slots, Windows


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that the engine is working on, as columns of equal length.

    `slots`, `ends` (the windows' end times in ns), `arrived` (when each window's last frame came in, monotonic seconds)
    and `seen` (the share of visible joints). The input stays in `staging` until the engine's result is collected and
    another window is staged.
    """

    staging: Staging
    slots: Slots
    ends: NDArray[np.int64]
    arrived: NDArray[np.float64]
    seen: Float
    launched: float

    def window(self, i: int) -> tuple[Float, Float]:
        """A copy of one window: joints (T, 15, 3), visible (T, 15)."""
        return self.staging.joints[i].copy(), self.staging.visible[i].copy()


class Batch:
    """The batch being staged: `n` windows so far, the first of them since `since`."""

    def __init__(self, engine: Engine, windows: Windows) -> None:
        self._engine, self._windows, self._staging = engine, windows, engine.staging
        size = self._staging.size
        self.n, self.since = 0, 0.0
        self._slots = np.zeros(size, np.intp)
        self._ends = np.zeros(size, np.int64)
        self._arrived = np.zeros(size)

    def add(self, slots: Slots, ends: NDArray[np.int64], now: float) -> int:
        """Copy in the slots' windows, as many as fit, and return how many. `ends` are capture times in ns.

        The engine must not be full.
        """
        if not self.n:
            self.since, self._staging = now, self._engine.staging
        n = min(len(slots), self._staging.size - self.n)
        part = slice(self.n, self.n + n)
        self._windows.gather(slots[:n], self._staging.joints[part], self._staging.visible[part])
        self._slots[part], self._ends[part], self._arrived[part] = slots[:n], ends[:n], now
        self.n += n
        return n

    @contextmanager
    def put_aside(self, n: int) -> Iterator[None]:
        """Save the first `n` rows of the buffer and restore them afterwards, so that the block may overwrite them."""
        n = min(n, self.n)
        joints, visible = self._staging.joints[:n].copy(), self._staging.visible[:n].copy()
        try:
            yield
        finally:
            self._staging.joints[:n], self._staging.visible[:n] = joints, visible

    @property
    def room(self) -> int:
        """How many more windows fit."""
        return self._staging.size - self.n

    @property
    def full(self) -> bool:
        return not self.room

    @property
    def slots(self) -> Slots:
        """The slots whose windows are staged."""
        return self._slots[: self.n]

    def take(self, now: float) -> InFlight:
        """Return the staged windows as a batch to submit, and begin an empty one."""
        n, staging = self.n, self._staging
        self.n = 0
        seen: Float = staging.visible[:n].mean((1, 2))
        return InFlight(staging, self._slots[:n].copy(), self._ends[:n].copy(), self._arrived[:n].copy(), seen, now)
