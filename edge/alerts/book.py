"""Raises and ends alerts by accumulating evidence per track; an alert can outlive a track that the tracker lost.

Each window adds or removes evidence: one step for each factor of 1.2 by which its score lies above or below the
threshold. The sum never falls below zero (Page's cumulative sum, 1954). `raise_after` steps raise an alert: with 4,
four windows a fifth above the threshold, or two at one and a half times the threshold. So a clear anomaly is announced
at once, and a faint one must last. The alert ends when `clear_after` windows in a row lie below `release · threshold`,
or when its track is gone.

An anomaly that begins again within `cool_down` seconds is the same alert: an `update` under the same id, even after its
`end` was sent. The same holds under another track id: trackers lose people and find them again, so a track that appears
where and when a track with an alert vanished continues that alert, if it is abnormal within `cool_down` seconds of its
first window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.grid import SECOND
from edge.skeleton import Float
from edge.windows import Place, Slots

Label = Callable[[int], str]
STEP = float(np.log(1.2))
"""One step of evidence: the logarithm of a score a fifth above the threshold."""


LOST_FOR, OVERLAP, APART = 2 * SECOND, SECOND // 2, 1.0
"""A track continues another if it appeared at most LOST_FOR after the other was lost, or at most OVERLAP before that
(ns), at a distance of at most APART times the body's size."""
LOST_MOST = 1000
"""Alerts of lost tracks that are remembered at most."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a slot's alert that is to be published.

    `index` is the window's place in the batch, −1 when no window caused the change. `raised`: the slot's alert began to
    stand with this change, either as a new one or, with type `update`, as one that continues.
    """

    type: Literal["new", "update", "end"]
    slot: int
    index: int
    id: str
    start: int
    end: int
    score: float
    peak: float
    raised: bool = False


@dataclass(frozen=True, slots=True)
class _Past:
    """An alert that no longer stands in its slot; `end` (ns) is when it last did."""

    id: str
    start: int
    end: int
    peak: float


class AlertBook:
    """Holds the state of every slot's alert, as columns.

    `place` returns where a slot's track is; without it no track continues another's alert.
    """

    def __init__(
        self,
        slots: int,
        *,
        threshold: float,
        release: float,
        raise_after: int,
        clear_after: int,
        update_every: float,
        cool_down: float = 0.0,
        place: Callable[[int], Place | None] | None = None,
    ) -> None:
        self.threshold, self.release = threshold, threshold * release
        self.raise_after, self.clear_after = raise_after, clear_after
        self.update_every, self.cool_down = round(update_every * SECOND), round(cool_down * SECOND)
        self.raised = np.zeros(slots, bool)
        self._evidence = np.zeros(slots)
        self._below = np.zeros(slots, np.int32)
        self._start = np.zeros(slots, np.int64)
        self._end = np.zeros(slots, np.int64)
        self._first = np.full(slots, -1, np.int64)
        self._said = np.zeros(slots, np.int64)
        self._peak = np.zeros(slots, np.float32)
        self._score = np.zeros(slots, np.float32)
        self._id: dict[int, str] = {}
        self._unclear = np.zeros(slots, bool)
        self._place = place
        self._past: dict[int, _Past] = {}
        self._lost: list[tuple[Place, _Past]] = []

    def update(self, slots: Slots, end: NDArray[np.int64], score: Float, label: Label) -> list[Change]:
        """Take scored windows in order of time, and return what changed.

        An alert's id is derived from `label(slot)` and its start. A slot may occur more than once; the windows are then
        processed in parts, in the order in which they came.
        """
        changes: list[Change] = []
        for part in _once_each(slots):
            index = np.arange(part.start, part.stop)
            changes += self._update(index, slots[part], end[part], score[part], label)
        return changes

    def _update(
        self, index: NDArray[np.intp], slots: Slots, end: NDArray[np.int64], score: Float, label: Label
    ) -> list[Change]:
        before = self._evidence[slots]
        self._unclear[slots] = False
        self._first[slots] = np.where(self._first[slots] < 0, end, self._first[slots])
        weight = np.log(np.maximum(score, 1e-6) / self.threshold) / STEP
        evidence = np.maximum(before + weight, 0)
        low = score < self.release
        started = (evidence > 0) & (before == 0) & ~self.raised[slots]
        self._start[slots[started]] = end[started]
        self._peak[slots[started]] = 0
        self._evidence[slots] = evidence
        self._below[slots] = np.where(low, self._below[slots] + 1, 0)
        self._peak[slots] = np.maximum(self._peak[slots], score)
        self._end[slots], self._score[slots] = end, score

        raised = self.raised[slots]
        # The tolerance covers rounding in the sum of logarithms.
        new = ~raised & (evidence >= self.raise_after - 1e-6)
        over = raised & (self._below[slots] >= self.clear_after)
        more = raised & (end - self._said[slots] >= self.update_every)
        out: list[Change] = []
        for i in np.flatnonzero(new | over | more):
            slot = int(slots[i])
            kind: Literal["new", "update", "end"] = "end" if over[i] else "update"
            if new[i]:
                self.raised[slot] = True
                if not self._continues_earlier(slot):
                    kind, text = "new", f"{label(slot)}|{int(self._start[slot])}"
                    self._id[slot] = hashlib.blake2s(text.encode(), digest_size=8).hexdigest()
            self._said[slot] = end[i]
            out.append(self._change(kind, slot, int(index[i]), raised=bool(new[i])))
            if over[i]:
                self._past[slot] = self._standing(slot)
                self._clear(slot)
        return out

    def unclear(self, slots: Slots) -> None:
        """Note that these slots' newest windows show too little to be judged: alerts stand, none is raised."""
        self._unclear[slots] = True

    @property
    def unclear_count(self) -> int:
        """How many people are in view whose newest window shows too little to be judged."""
        return int(self._unclear.sum())

    def may_be_continued(self, slots: list[int]) -> bool:
        """Whether another track could take over an alert of these slots once they are closed.

        If so, it matters whether other slots' windows are judged before or after the closing.
        """
        return any(self.raised[s] or s in self._past for s in slots)

    def close(self, slots: list[int]) -> list[Change]:
        """End the alerts of slots whose tracks are gone, and forget the slots' state."""
        out = [self._change("end", s, -1) for s in slots if self.raised[s]]
        for s in slots:
            past = self._standing(s) if self.raised[s] else self._past.get(s)
            if past and self._place is not None and (place := self._place(s)) is not None:
                # Streams' clocks differ, so a stream's lost alerts expire by its own clock.
                self._lost = [x for x in self._lost if x[0].stream != place.stream or _recent(x[0], place)]
                if self.raised[s] or place.until - past.end <= self.cool_down:
                    self._lost.append((place, past))
                    del self._lost[:-LOST_MOST]  # bounds what is kept for streams that never come back
            self._clear(s)
            self._past.pop(s, None)
            self._unclear[s], self._first[s] = False, -1
        return out

    def _continues_earlier(self, slot: int) -> bool:
        """Whether the slot's new alert continues one that stood a moment ago, here or in another slot.

        If so, the slot takes over that alert's id, start and peak.
        """
        past = self._past.pop(slot, None)
        if past is not None and int(self._start[slot]) - past.end <= self.cool_down:
            self._take(slot, past)
            return True
        if self._place is None or (now := self._place(slot)) is None:
            return False
        for n, (place, past) in enumerate(self._lost):
            since = max(past.end, int(self._first[slot]))  # nobody could be judged in between
            if _continues(place, now) and int(self._start[slot]) - since <= self.cool_down:
                del self._lost[n]
                self._take(slot, past)
                return True
        for other in np.flatnonzero(self.raised):
            old = int(other)
            if old != slot and (there := self._place(old)) is not None and _continues(there, now):
                self._take(slot, self._standing(old))
                self._clear(old)
                return True
        return False

    def _standing(self, slot: int) -> _Past:
        return _Past(self._id[slot], int(self._start[slot]), int(self._end[slot]), float(self._peak[slot]))

    def _take(self, slot: int, past: _Past) -> None:
        self._id[slot], self._start[slot] = past.id, past.start
        self._peak[slot] = max(past.peak, float(self._peak[slot]))

    def _change(self, kind: Literal["new", "update", "end"], slot: int, index: int, *, raised: bool = False) -> Change:
        return Change(
            kind,
            slot,
            index,
            self._id[slot],
            int(self._start[slot]),
            int(self._end[slot]),
            float(self._score[slot]),
            float(self._peak[slot]),
            raised,
        )

    def _clear(self, slot: int) -> None:
        self.raised[slot] = False
        self._evidence[slot] = self._below[slot] = 0
        self._id.pop(slot, None)


def _once_each(slots: Slots) -> Iterator[slice]:
    """Split `slots` into consecutive parts in which no slot occurs twice.

    The parts keep the order of arrival, since whether an alert continues depends on the alerts of other slots.
    """
    start, seen = 0, set[int]()
    for i, slot in enumerate(slots.tolist()):
        if slot in seen:
            yield slice(start, i)
            start, seen = i, set()
        seen.add(slot)
    if seen:
        yield slice(start, len(slots))


def _recent(old: Place, new: Place) -> bool:
    """Whether a track that begins after `new` was lost could still continue `old`."""
    return abs(new.until - old.until) <= 2 * LOST_FOR


def _continues(old: Place, new: Place) -> bool:
    """Whether `new` appeared where and when `old` vanished."""
    gap = new.since - old.until
    apart = float(np.linalg.norm(np.asarray(new.first) - old.last))
    return old.stream == new.stream and -OVERLAP <= gap <= LOST_FOR and apart <= APART * max(old.size, new.size)
