"""Turns distances into alerts: applies scoring, the track's baseline and the alert book to each batch, in this order.

    distance (n, G + P) ─► Scorer: limits, and what is normal on the stream ─► TrackBaseline: the track's usual level
                                                       Changes ◄── AlertBook: evidence, hysteresis, cool-down ◄──┘

The loop, `haad-edge calibrate` and the evaluation all judge through this module, so that what is measured is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.alerts.book import AlertBook, Change
from edge.score import NormalByStream, Scorer, TrackBaseline, TransitionTimer, threshold_of
from edge.settings import Settings
from edge.skeleton import Float
from edge.support.enrol import SupportSet
from edge.windows import Place, Slots


@dataclass(frozen=True, slots=True)
class Verdict:
    """n windows' scores (n,), 1 being the limit; their nearest categories (n,); and the alert changes to publish."""

    score: Float
    nearest: NDArray[np.intp]
    changes: list[Change]


class Tracks(Protocol):
    """Tells whose track is in which slot, as `edge.windows.Windows` does."""

    def who(self, slot: int) -> tuple[str, int]:
        """The stream's name and the track's id."""

    def place(self, slot: int) -> Place | None:
        """Where and when the track was seen; None if that is not known."""


def book_of(
    s: Settings, slots: int, threshold: float = 1.0, place: Callable[[int], Place | None] | None = None
) -> AlertBook:
    """Make the alert book that the settings ask for, with their threshold multiplied by `threshold`."""
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
    """Holds all state between distances and alerts, for `slots` slots. `calibration` is the bundle's."""

    def __init__(self, s: Settings, calibration: Mapping[str, NDArray[Any]], slots: int, tracks: Tracks) -> None:
        self._normal, self._expect, self._tracks = s.normal, s.expected, tracks
        threshold = threshold_of(calibration, s.sensitivity, s.false_alarms)
        in_effect = "rates" in calibration or (s.sensitivity == "default" and s.false_alarms is None)
        ignored = "sensitivity and false_alarms have no effect: this bundle was not calibrated"
        self._ignored = [] if in_effect else [ignored]
        self.book = book_of(s, slots, threshold, tracks.place)
        self._usual, self._passing = TrackBaseline(slots), TransitionTimer(slots)

    @property
    def columns(self) -> tuple[object, ...]:
        """The objects that hold arrays with one row per slot."""
        return self.book, self._usual, self._passing

    def use(self, support: SupportSet) -> list[str]:
        """Judge by this support from now on; returns what in the settings does not fit the support or the bundle."""
        self._scorer, self._expected = Scorer(support.limit, support.transitions), support.usual
        self._normal_on = NormalByStream(self._normal, support.names, support.transitions, self._expect)
        return [*self._ignored, *self._normal_on.trouble]

    def __call__(self, slots: Slots, ends: NDArray[np.int64], distance: Float, seen: Float) -> Verdict:
        """Judge windows in order of time: slots (n,), ends (n,) in ns, distance (n, G + P).

        `seen` (n,) is the share of each window's joints that is visible.
        """
        here = self._normal_on.rows(self._tracks.who(s)[0] for s in slots.tolist()) if self._normal else None
        found = self._scorer(distance, here, partial(self._passing, slots, ends))
        score = found.score
        if len(self._expected):
            score = self._usual(slots, score, self._expected[found.group], seen)
        return Verdict(score, found.category, self.book.update(slots, ends, score, self._label))

    def unclear(self, slots: Slots) -> None:
        """Note that the slots' people are in view but their newest windows show too little to be judged."""
        self.book.unclear(slots)

    def close(self, slots: list[int]) -> list[Change]:
        """End the alerts of slots whose tracks are gone, and forget their state. Call it before they are released."""
        changes = self.book.close(slots)
        self._usual.forget(slots)
        self._passing.forget(slots)
        return changes

    def _label(self, slot: int) -> str:
        """What an alert's id is derived from, together with its start."""
        stream, track = self._tracks.who(slot)
        return f"{stream}|{track}"
