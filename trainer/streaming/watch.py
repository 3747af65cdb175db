"""Watches takes as the engine watches cameras, with the device's own windows, encoder, scores and alerts.

    takes ─► Windows (each take a stream of its own, all in step) ─► embeddings ─► Watched
    Watched, support of a draw ─► match, limit ─► TrackBaseline ─► AlertBook ─► scores, and when alerts were raised

An encoder sees each window once. The distances to every draw's support are then computed by `match`, which equals the
match in the graph, as tests check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge.grid import SECOND, WindowSpec
from edge.judge import book_of
from edge.score import Scorer, TrackBaseline, TransitionTimer, match
from edge.settings import Settings
from edge.skeleton import Float, J
from edge.windows import Slots, Windows
from trainer.streaming.takes import Take

Embed = Callable[[Float, Float], Float]
AT_ONCE = 512
"""Windows that are embedded together."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A take's windows: end (W,) in seconds, the share of joints seen (W,), and the features (W, D) of each encoder."""

    end: NDArray[np.float64]
    seen: NDArray[np.float64]
    features: tuple[Float, ...]


def watch(
    takes: Sequence[Take], encoders: Sequence[Embed], *, frames: int, seconds: float, s: Settings
) -> list[Watched]:
    """Cut each take into windows and embed them, as the device does. `frames` and `seconds` are the model's window."""
    spec = WindowSpec.of(frames, seconds, s.stride, s.max_gap, s.track_timeout)
    windows = Windows(spec, len(takes), len(takes))
    slots = []
    for i in range(len(takes)):
        stream = windows.stream_named(str(i))
        assert stream is not None
        slots += windows.slots_of(stream, [0]).tolist()
    embedded = _Embedded(encoders, windows, AT_ONCE)
    times = [np.round(t.time * SECOND).astype(np.int64) for t in takes]
    for k in range(max(len(t) for t in times)):
        there = [i for i, t in enumerate(times) if k < len(t)]
        joints = np.stack([takes[i].joints[k] for i in there])
        visible = np.stack([takes[i].visible[k] for i in there])
        at = np.array([times[i][k] for i in there])
        for due, ends in windows.push(np.array([slots[i] for i in there]), at, joints, visible):
            embedded.add(due, ends)
    return embedded.of(slots)


class _Embedded:
    """Collects windows, and embeds them in batches."""

    def __init__(self, encoders: Sequence[Embed], windows: Windows, size: int) -> None:
        self._encoders, self._windows, self._n = encoders, windows, 0
        self._joints = np.empty((size, windows.spec.frames, J, 3), np.float32)
        self._visible = np.empty((size, windows.spec.frames, J), np.float32)
        self._rows: list[tuple[Slots, NDArray[np.int64]]] = []
        self._seen: list[Float] = []
        self._features: list[list[Float]] = [[] for _ in encoders]

    def add(self, slots: Slots, ends: NDArray[np.int64]) -> None:
        size = len(self._joints)
        for i in range(0, len(slots), size):
            part = slots[i : i + size]
            if self._n + len(part) > size:
                self.flush()
            to = slice(self._n, self._n + len(part))
            self._windows.gather(part, self._joints[to], self._visible[to])
            self._rows.append((part, ends[i : i + size]))
            self._n += len(part)

    def flush(self) -> None:
        joints, visible = self._joints[: self._n], self._visible[: self._n]
        self._seen.append(visible.mean((1, 2)))
        for encoder, out in zip(self._encoders, self._features, strict=True):
            out.append(encoder(joints, visible))
        self._n = 0

    def of(self, slots: Sequence[int]) -> list[Watched]:
        """What was collected, for each of the slots in the order given."""
        if self._n:
            self.flush()
        if not self._rows:
            return [Watched(np.zeros(0), np.zeros(0), ()) for _ in slots]
        slot = np.concatenate([s for s, _ in self._rows])
        end = np.concatenate([e for _, e in self._rows]) / SECOND
        seen = np.concatenate(self._seen)
        features = [np.concatenate(f) for f in self._features]
        return [
            Watched(end[m], seen[m].astype(np.float64), tuple(f[m] for f in features))
            for m in (slot == s for s in slots)
        ]


@dataclass(frozen=True, slots=True)
class Run:
    """A take judged against one support: end (W,) in seconds, score (W,), NaN if the pose was too poor, seen (W,)."""

    end: NDArray[np.float64]
    score: Float
    seen: NDArray[np.float64]


def score(
    features: Float,
    slots: Slots,
    ends: NDArray[np.float64],
    groups: Sequence[Sequence[Float]],
    *,
    categories: int,
    level: NDArray[np.float64],
    margin: NDArray[np.float64],
    temperature: float,
) -> tuple[Float, NDArray[np.float64]]:
    """Score windows as the device does before `follow`: scores (n,), and the expected scores of normal windows (n,).

    features (n, D), slots (n,) the window's track, ends (n,) in seconds, in order of time within each track. `groups`
    hold features by clip, (k, D) each: first those of the normal categories, `categories` of them, then those of the
    transitions between two.
    """
    distance = np.stack([match(features, np.concatenate(g), temperature) for g in groups], 1).astype(np.float32)
    between = np.zeros((len(groups) - categories, 2), np.intp)  # which two categories does not matter here
    passing = partial(TransitionTimer(int(slots.max(initial=0)) + 1), slots, np.round(ends * SECOND).astype(np.int64))
    found = Scorer(level * margin, between)(distance, None, passing)
    return found.score, 1 / margin[found.group]


def follow(runs: Sequence[Run], expected: Sequence[float | NDArray[np.float64]]) -> list[Run]:
    """Make the runs' scores relative to what is usual on each run (`edge.score.TrackBaseline`).

    `expected` holds for each run the score expected of a normal window: one number, or one for each of its windows.
    """
    usual = TrackBaseline(len(runs))
    level = [np.broadcast_to(e, len(r.end)) for r, e in zip(runs, expected, strict=True)]
    out = [Run(r.end, np.full(len(r.end), np.nan, np.float32), r.seen) for r in runs]
    for k, slots, score in _in_step(runs):
        seen, level_here = (np.array([x[i][k] for i in slots]) for x in ([r.seen for r in runs], level))
        for i, x in zip(slots, usual(slots, score, level_here, seen), strict=True):
            out[i].score[k] = x
    return out


def alerts(runs: Sequence[Run], s: Settings, threshold: float = 1.0) -> list[NDArray[np.float64]]:
    """The times (seconds) at which the settings' alert book, its threshold times `threshold`, raises alerts, by run."""
    book = book_of(s, len(runs), threshold)
    raised: list[list[float]] = [[] for _ in runs]
    for k, slots, score in _in_step(runs):
        end = np.array([round(runs[i].end[k] * SECOND) for i in slots])
        for c in book.update(slots, end, score, str):
            if c.type == "new":
                raised[c.slot].append(float(runs[c.slot].end[k]))
    return [np.array(r) for r in raised]


def _in_step(runs: Sequence[Run]) -> Iterator[tuple[int, Slots, Float]]:
    """Yield the k-th windows of all runs that have one that could be judged: (k, the runs' numbers, scores)."""
    length = max((len(r.end) for r in runs), default=0)
    table = np.full((length, len(runs)), np.nan, np.float32)
    for i, r in enumerate(runs):
        table[: len(r.score), i] = r.score
    for k, row in enumerate(table):
        slots = np.flatnonzero(np.isfinite(row))
        if len(slots):
            yield k, slots, row[slots]
