"""Windows that wait for the next inference, in the engine's own input buffers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.engine import Staging
from edge.skeleton import Float
from edge.windows import Slots, Windows


class Batch:
    """The staged windows, described by equally long columns; `n` of them so far, the first staged at `since`."""

    def __init__(self, staging: Staging, windows: Windows) -> None:
        self._staging, self._windows = staging, windows
        size = staging.size
        self.n, self.since = 0, 0.0
        self._slots = np.zeros(size, np.intp)
        self._ends = np.zeros(size, np.int64)
        self._arrived = np.zeros(size)

    def add(self, slots: Slots, ends: NDArray[np.int64], now: float) -> int:
        """Copy the slots' windows, as many as there is room for; returns how many. `ends` are capture times in ns."""
        if not self.n:
            self.since = now
        n = min(len(slots), self._staging.size - self.n)
        part = slice(self.n, self.n + n)
        self._windows.gather(slots[:n], self._staging.joints[part], self._staging.visible[part])
        self._slots[part], self._ends[part], self._arrived[part] = slots[:n], ends[:n], now
        self.n += n
        return n

    @property
    def full(self) -> bool:
        return self.n == self._staging.size

    @property
    def slots(self) -> Slots:
        return self._slots[: self.n]

    @property
    def ends(self) -> NDArray[np.int64]:
        return self._ends[: self.n]

    @property
    def arrived(self) -> NDArray[np.float64]:
        """When each window's last frame came in, monotonic seconds."""
        return self._arrived[: self.n]

    @property
    def seen(self) -> Float:
        """The share of joints visible in each window."""
        share: Float = self._staging.visible[: self.n].mean((1, 2))
        return share

    def window(self, i: int) -> tuple[Float, Float]:
        """A copy of one staged window: joints (T, 15, 3), visible (T, 15)."""
        return self._staging.joints[i].copy(), self._staging.visible[i].copy()

    def clear(self) -> None:
        self.n = 0
