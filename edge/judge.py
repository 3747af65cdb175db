"""From distances to what is said: each station's rule in the order that a batch passes them.

    distance (n, G + P) ─► Scorer: limits, and what is normal on the stream ─► Usual: what is usual on the track
                                                       Changes ◄── AlertBook: evidence, hysteresis, cool-down ◄──┘

The loop, `haad-edge calibrate` and the evaluation judge through this one, so that what is measured is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.alerts.book import AlertBook, Change
from edge.score import NormalHere, Passing, Scorer, Usual, threshold_of
from edge.settings import Settings
from edge.skeleton import Float
from edge.support.enrol import SupportSet
from edge.windows import Place, Slots


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of n windows: score (n,), 1 being the limit; the nearest category (n,); and what is to be said."""

    score: Float
    nearest: NDArray[np.intp]
    changes: list[Change]


class Tracks(Protocol):
    """Who is in which slot: `edge.windows.Windows` knows."""

    def who(self, slot: int) -> tuple[str, int]:
        """Stream and track id."""

    def place(self, slot: int) -> Place | None:
        """Where and when the track was seen; None: not known."""


def book_of(
    s: Settings, slots: int, threshold: float = 1.0, place: Callable[[int], Place | None] | None = None
) -> AlertBook:
    """The settings' alert book, its threshold times `threshold`."""
    return AlertBook(
        slots,
        threshold=s.threshold * threshold,
        release=s.release,
        raise_after=s.raise_after,
        clear_after=s.clear_after,
        update_every=s.update_every,
        cool_down=s.cool_down,
        place=place,
    )


class Judge:
    """The state of everything between distances and alerts, over so many slots.

    `calibration` is the bundle's.
    """

    def __init__(self, s: Settings, calibration: Mapping[str, NDArray[Any]], slots: int, tracks: Tracks) -> None:
        self._normal, self._tracks = s.normal, tracks
        aimed = threshold_of(calibration, s.sensitivity, s.false_alarms)
        heard = "rates" in calibration or (s.sensitivity == "default" and s.false_alarms is None)
        self._unheard = [] if heard else ["sensitivity and false_alarms have no effect: this bundle was not calibrated"]
        self.book = book_of(s, slots, aimed, tracks.place)
        self._usual, self._passing = Usual(slots), Passing(slots)

    @property
    def columns(self) -> tuple[object, ...]:
        """What holds an array's row for each slot."""
        return self.book, self._usual, self._passing

    def use(self, support: SupportSet) -> list[str]:
        """Judge by this support from now on; returns what is wrong between it and the settings."""
        self._scorer, self._expected = Scorer(support.limit, support.turns), support.usual
        self._here = NormalHere(self._normal, support.names, support.turns)
        return [*self._unheard, *self._here.trouble]

    def __call__(self, slots: Slots, ends: NDArray[np.int64], distance: Float, seen: Float) -> Verdict:
        """Judge windows in order of time: slots (n,), ends (n,) in ns, distance (n, G + P), seen (n,) of its joints."""
        here = self._here.rows(self._tracks.who(s)[0] for s in slots.tolist()) if self._normal else None
        found = self._scorer(distance, here, partial(self._passing, slots, ends))
        score = found.score
        if len(self._expected):
            score = self._usual(slots, score, self._expected[found.group], seen)
        return Verdict(score, found.category, self.book.update(slots, ends, score, self._label))

    def unclear(self, slots: Slots) -> None:
        """The slots' people are in view, and their newest windows too poor to judge."""
        self.book.unclear(slots)

    def close(self, slots: list[int]) -> list[Change]:
        """The slots' tracks are gone; call it before they are released."""
        changes = self.book.close(slots)
        self._usual.forget(slots)
        self._passing.forget(slots)
        return changes

    def _label(self, slot: int) -> str:
        """What an alert's id is derived from, beside its start."""
        stream, track = self._tracks.who(slot)
        return f"{stream}|{track}"
