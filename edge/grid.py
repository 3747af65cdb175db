"""Computes a track's own time grid: its rows, and when its windows are due.

The grid begins at a track's first frame and has `frames / seconds` rows a second, whatever the camera's rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000_000
"""One second in nanoseconds, the unit of all capture times."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """T rows span `seconds`; a window is due every `stride` rows. Times in ns."""

    frames: int
    seconds: float
    stride: int
    max_gap: int
    timeout: int

    @classmethod
    def of(cls, frames: int, seconds: float, stride: float, max_gap: float, timeout: float) -> WindowSpec:
        """Make a spec from times in seconds; the stride is rounded to whole rows, at least one."""
        rows = max(1, round(stride * frames / seconds))
        return cls(frames, seconds, rows, round(max_gap * SECOND), round(timeout * SECOND))

    def grid(self, n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nanoseconds from a track's first frame to its row `n`."""
        return n * round(self.seconds * SECOND) // self.frames

    def rows(self, since: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows a track has `since` ns after its first frame: those with `grid(n) ≤ since`."""
        return -(-(since + 1) * self.frames // round(self.seconds * SECOND))

    def due(self, rows: NDArray[np.int64], phase: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many windows of a track have been due by the time it has so many rows.

        The first when its ring was full, and then one every stride, at the track's phase.
        """
        after = (rows - self.frames - phase) // self.stride + (phase > 0)
        return np.where(rows < self.frames, 0, 1 + after)


def phase_of(stream: str, track: int, stride: int) -> int:
    """The row within a stride at which a track's windows are due: the same in every replay of the track."""
    return (crc32(stream.encode()) + track) % stride
