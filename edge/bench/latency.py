"""Computes latencies: from what a listener received, and from the engine's own histogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge.events import Alert, Event, Scores
from edge.grid import SECOND

EDGES_MS = np.array([0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 80, 100, 150, 200, 500, 1000, np.inf])


@dataclass(slots=True)
class Latencies:
    """Seconds from a window's end (capture time) to its arrival, for scores and alerts; and when scores arrived."""

    score: list[float] = field(default_factory=list)
    score_at: list[float] = field(default_factory=list)
    alert: list[float] = field(default_factory=list)

    def take(self, event: Event, now: int) -> None:
        """Record an event that arrived at `now`, in ns of the same clock as the capture times.

        The end of an alert does not count: it may have waited until its track was gone, and not for the engine.
        """
        if isinstance(event, Scores):
            self.score += [(now - end) / SECOND for end in event.end]
            self.score_at += [now / SECOND] * len(event.end)
        elif isinstance(event, Alert) and event.type != "end":
            self.alert.append((now - event.end) / SECOND)


def summary(seconds: list[float]) -> dict[str, object]:
    """Count, p50, p99 and max in ms, and a histogram over EDGES_MS."""
    if not seconds:
        return {"count": 0}
    ms = np.array(seconds) * 1000
    p50, p99, most = np.quantile(ms, [0.5, 0.99, 1.0]).round(2).tolist()
    counts = np.histogram(np.maximum(ms, 0), EDGES_MS)[0].tolist()
    return {"count": len(ms), "p50_ms": p50, "p99_ms": p99, "max_ms": most, "histogram": counts}


def by_second(seconds: list[float], at: list[float]) -> list[tuple[float, float, float]]:
    """(seconds since the first, p50 ms, p99 ms) for every second in which something arrived."""
    if not seconds:
        return []
    when, ms = np.array(at) - at[0], np.array(seconds) * 1000
    out = []
    for s in np.unique(np.floor(when)):
        p50, p99 = np.quantile(ms[np.floor(when) == s], [0.5, 0.99]).round(2).tolist()
        out.append((float(s), p50, p99))
    return out


def bucket_quantile(before: Mapping[str, float], after: Mapping[str, float], name: str, q: float) -> float | None:
    """A quantile of a Prometheus histogram's growth between two scrapes, linear within a bucket; None if no growth."""
    key = f"{name}_bucket{{"
    bounds = sorted((float(k[len(key) : -1]), k) for k in after if k.startswith(key))
    counts = [after[k] - before.get(k, 0.0) for _, k in bounds]
    if not counts or counts[-1] <= 0:
        return None
    rank, low, under = q * counts[-1], 0.0, 0.0
    for (high, _), count in zip(bounds, counts, strict=True):
        if count >= rank:
            return low if high == float("inf") else low + (high - low) * (rank - under) / max(count - under, 1e-12)
        low, under = high, count
    return low
