"""Counts what the loop infers, for the metrics page and the status. Only the loop writes to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.inference.batch import InFlight

LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Counts:
    """The loop's counters. Seconds are wall-clock.

    `latency` counts windows by `LATENCY_BUCKETS`, from the arrival of a window's last frame to its score.
    """

    windows: int = 0
    batches: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    swaps: int = 0
    engine_seconds: float = 0.0
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LATENCY_BUCKETS) + 1, np.int64))
    latency_sum: float = 0.0
    _last_result: float = 0.0

    def batch(self, batch: InFlight, now: float) -> None:
        """Account for a batch whose result came in. Of two that overlap, the engine starts on the second later."""
        late = now - batch.arrived
        self.batches += 1
        self.engine_seconds += now - max(batch.launched, self._last_result)
        self._last_result = now
        self.latency += np.bincount(np.searchsorted(LATENCY_BUCKETS, late), minlength=len(LATENCY_BUCKETS) + 1)
        self.latency_sum += float(late.sum())
