"""Windows on their way to the engine: staged in its own input buffers, and then under way.

slots ─gather─► Batch (one of the engine's buffers) ─take─► Flight ─► engine ─► Dispatch
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
class Flight:
    """A batch that the engine has, by equally long columns: who, the windows' end times in ns, when each window's last
    frame came in (monotonic seconds), the share of joints seen. Its input stays in `staging` until the engine's result
    is collected and another window is staged.
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
    """The windows being staged; `n` of them so far, the first at `since`."""

    def __init__(self, engine: Engine, windows: Windows) -> None:
        self._engine, self._windows, self._staging = engine, windows, engine.staging
        size = self._staging.size
        self.n, self.since = 0, 0.0
        self._slots = np.zeros(size, np.intp)
        self._ends = np.zeros(size, np.int64)
        self._arrived = np.zeros(size)

    def add(self, slots: Slots, ends: NDArray[np.int64], now: float) -> int:
        """Copy the slots' windows, as many as there is room for; returns how many. `ends` are capture times in ns.

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
        """Let the first `n` rows of the buffer be used for something else meanwhile."""
        n = min(n, self.n)
        joints, visible = self._staging.joints[:n].copy(), self._staging.visible[:n].copy()
        try:
            yield
        finally:
            self._staging.joints[:n], self._staging.visible[:n] = joints, visible

    @property
    def room(self) -> int:
        """How many more windows it takes."""
        return self._staging.size - self.n

    @property
    def full(self) -> bool:
        return not self.room

    @property
    def slots(self) -> Slots:
        """Whose windows are staged."""
        return self._slots[: self.n]

    def take(self, now: float) -> Flight:
        """What is staged, to be submitted; the batch is empty then."""
        n, staging = self.n, self._staging
        self.n = 0
        seen: Float = staging.visible[:n].mean((1, 2))
        return Flight(staging, self._slots[:n].copy(), self._ends[:n].copy(), self._arrived[:n].copy(), seen, now)
