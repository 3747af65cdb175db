"""Turns distances into scores: the reference form of the match, and what makes scores comparable between categories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from edge.grid import SECOND
from edge.skeleton import Float

SENSITIVITY = {"low": 1.0, "default": 6.0, "high": 30.0}
"""False alarms per camera-hour of normal activity that each sensitivity is calibrated for."""
NO_TRANSITIONS: NDArray[np.intp] = np.zeros((0, 2), np.intp)


def match(embedding: Float, support: Float, temperature: float) -> NDArray[np.float64]:
    """The distance of each embedding (N, D) to one category's support (K, D), as the graph computes it: (N,).

    d_k = 1 − cos, Σ w_k d_k with w = softmax(−d / τ). Used where there is no graph: for leave-one-out at enrolment, the
    cohort, and evaluation. A test keeps it equal to the graph's own output.
    """
    d = 1 - embedding.astype(np.float64) @ support.astype(np.float64).T
    w = np.exp((d.min(-1, keepdims=True) - d) / temperature)
    return np.asarray((d * w).sum(-1) / w.sum(-1))


def level_of(support: list[Float], calibration: Mapping[str, NDArray[np.floating]], temperature: float) -> float:
    """The median distance expected of normal windows of a person who is not in the support.

    `support` holds one (k, D) array of window embeddings per clip. A regression, whose constants are in the bundle,
    computes it from what enrolment knows (`spreads`). They were fitted on streams of people held out of training
    (`trainer/calibrate.py`).
    """
    weights = calibration["level_one" if len(support) < 2 else "level"]
    known = spreads(support, calibration["cohort"].astype(np.float32), temperature)
    return float(np.exp(weights[0] + known @ weights[1:]))


def margin_of(shots: int, calibration: Mapping[str, NDArray[np.floating]]) -> float:
    """The limit of a category as a multiple of its level: the fewer clips (`shots`), the wider.

    It is such that a score of 1 means the same rate of false alarms for any number of clips. The bundle holds margins
    measured for some numbers of clips; between them they are interpolated.
    """
    known, margin = np.asarray(calibration["margin"], np.float64).T
    return float(np.exp(np.interp(np.log(shots), np.log(known), np.log(margin))))


def spreads(support: list[Float], cohort: Float, temperature: float) -> NDArray[np.float64]:
    """The logarithms of what a category's clips tell about distances to it: (3,) for several clips, (2,) for one.

    How near the motions of other people and actions come to it (the cohort, as in speaker verification's score
    normalisation, Reynolds et al. 2000); how far its windows lie from each other; and, with several clips, the median
    of the windows' distances to the other clips (leave one clip out).
    """
    everything = np.concatenate(support)
    impostor = np.quantile(match(cohort, everything, temperature), 0.05)
    among = match(everything, everything, temperature).mean()
    known = [impostor, among]
    if len(support) > 1:
        # One at a time: for a thousand clips, a thousand copies of nearly everything would be gigabytes.
        ends = np.cumsum([len(clip) for clip in support])
        apart = [
            match(clip, np.concatenate([everything[: end - len(clip)], everything[end:]]), temperature)
            for clip, end in zip(support, ends, strict=True)
        ]
        known.append(np.median(np.concatenate(apart)))
    return np.log(np.array(known) + 1e-3)


def threshold_of(
    calibration: Mapping[str, NDArray[np.floating]], sensitivity: str = "default", false_alarms: float | None = None
) -> float:
    """The score from which windows count towards an alert, for a sensitivity or for false alarms per camera-hour.

    The bundle holds the rates of false alarms measured on normal activity at several scores. Between measured rates the
    score is interpolated, beyond them the nearest is taken. It is 1 for a bundle without measured rates.
    """
    if "rates" not in calibration or (false_alarms is None and sensitivity == "default"):
        return 1.0
    score, rate = np.asarray(calibration["rates"], np.float64).T
    order = np.argsort(rate)
    wanted = SENSITIVITY[sensitivity] if false_alarms is None else false_alarms
    return float(np.exp(np.interp(np.log(wanted), np.log(rate[order]), np.log(score[order]))))


class TrackBaseline:
    """Makes scores relative to each track's usual level, as columns over slots.

    People differ more than their support can tell: one repeats a normal action at half the distance of another, and
    more evenly. So the mean of a track's log scores, and their mean deviation from it (the spread), are followed over
    about the last minute. Scores are taken relative to the mean, and lowered where the spread is larger than is common.

    The mean starts at the score that the calibration expects of normal windows. Windows far above it weigh a tenth, and
    it moves no further than FALL and RISE from its start, so that an anomaly that lasts does not become normal. For a
    few seconds the scores of a new track are lowered out of caution. So are those of a window that shows less of the
    person than is usual on the track: when a limb is briefly hidden the pose is a guess, which must raise no alarm.
    """

    BELIEF, MEMORY = 6.0, 240.0
    """How many windows the starting value weighs, and how many windows the mean reaches back."""
    CLIP, FAR, LESS = 0.3, 0.5, 0.1
    """In log scores: the most that one window counts as off the mean, and how far above it a window is a far one; the
    weight of a far window."""
    FALL, RISE = 0.8, 0.8
    EVEN, UNEVEN = 0.15, 0.5
    """The spread at the start, and the most that one window contributes to it."""
    CAUTION = 0.25
    """How far the scores of a new track are lowered, as a logarithm, while only the starting value is known."""

    HIDDEN = 6.0
    """How far scores are lowered, as a logarithm, if all of a usually visible body is hidden; else in proportion."""

    def __init__(self, slots: int) -> None:
        self._seen = np.full(slots, np.nan)
        self._shift = np.zeros(slots)
        self._spread = np.full(slots, self.EVEN)
        self._count = np.full(slots, self.BELIEF)

    def __call__(
        self, slots: NDArray[np.intp], score: Float, usual: NDArray[np.floating], seen: NDArray[np.floating]
    ) -> Float:
        """Return the scores (n,) of the slots' windows relative to each track's usual level.

        A slot may occur more than once. `usual` (n,) is the score that a normal window of a person unknown to the
        support is expected to have in the nearest category, `seen` (n,) the share of the window's visible joints.
        """
        out = np.empty(len(score), np.float32)
        left = np.arange(len(slots))
        while len(left):
            _, first = np.unique(slots[left], return_index=True)
            now = left[first]
            over = np.log(np.maximum(score[now], 1e-6) / usual[now])
            out[now] = self._follow(slots[now], over, seen[now]) * usual[now]
            left = np.delete(left, first)
        return out

    def _follow(
        self, s: NDArray[np.intp], score: NDArray[np.floating], seen: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Turn log scores (n,), relative to the expected score, into ratios to the usual one; then update the level."""
        before = np.where(np.isnan(self._seen[s]), seen, self._seen[s])
        score = score - self.HIDDEN * np.maximum(before - seen, 0)
        shift, spread = self._shift[s], self._spread[s]
        above = score - shift
        caution = self.CAUTION * self.BELIEF / self._count[s]
        weight = np.where(above > self.FAR, self.LESS, 1.0)
        self._count[s] = count = np.minimum(self._count[s] + weight, self.MEMORY)
        self._seen[s] = before + (seen - before) / count
        weight /= count
        self._shift[s] = np.clip(shift + weight * np.clip(above, -self.CLIP, self.CLIP), -self.FALL, self.RISE)
        self._spread[s] = spread + weight * (np.minimum(np.abs(above), self.UNEVEN) - spread)
        lowered = np.minimum(spread - self.EVEN, self.RISE - shift)
        return np.asarray(np.exp(above - lowered - caution), np.float64)

    def forget(self, slots: Sequence[int]) -> None:
        """Reset the slots, whose tracks are gone."""
        at = np.asarray(slots, np.intp)
        self._shift[at], self._spread[at], self._count[at], self._seen[at] = 0.0, self.EVEN, self.BELIEF, np.nan


@dataclass(frozen=True, slots=True)
class Scored:
    """n windows' scores (n,), 1 being the limit; the groups that gave them (n,); the categories they count as (n,)."""

    score: Float
    group: NDArray[np.intp]
    category: NDArray[np.intp]


class Scorer:
    """Turns distances to every group into scores relative to the limit of the nearest group.

    Groups are the categories and, after them, the transitions from one category to another. `transitions` (P, 2) holds
    the numbers of each one's two categories. A window nearest to a transition counts as the nearer of the two.
    """

    def __init__(self, limit: NDArray[np.floating], transitions: NDArray[np.intp] = NO_TRANSITIONS) -> None:
        self.limit, self._transitions = np.asarray(limit, np.float32), transitions
        self._categories = len(limit) - len(transitions)

    def __call__(
        self,
        distance: Float,
        normal: NDArray[np.bool_] | None = None,
        passing: Callable[[NDArray[np.bool_]], NDArray[np.bool_]] | None = None,
    ) -> Scored:
        """Score distances (B, M). `normal` (B, M) marks the groups that count on each window's stream; None: all.

        `passing` is given which windows (B,) are within a category's limit, and returns for which of them transitions
        count.
        """
        relative = distance / self.limit
        if normal is not None:
            relative = np.where(normal, relative, np.inf).astype(np.float32)
        if passing is not None and len(self._transitions):
            counts = passing(np.asarray((relative[:, : self._categories] <= 1).any(1)))
            relative[~counts, self._categories :] = np.inf
        rows, group = np.arange(len(relative)), relative.argmin(1)
        category = group.copy()
        between = group >= self._categories
        if between.any():
            two = self._transitions[group[between] - self._categories]
            nearer = np.take_along_axis(relative[between], two, 1).argmin(1)
            category[between] = two[np.arange(len(two)), nearer]
        return Scored(relative[rows, group], group, category)


class TransitionTimer:
    """Limits how long a transition, a change between two actions, can make a track normal; as a column over slots.

    A transition is over when no window contains any of it. So they count for LASTS seconds after a track's last window
    within the limit of a category. Somebody who has just come into view was not seen to do anything normal yet, and
    whatever was left of a transition then is soon out of the windows: they count for ARRIVES seconds after the first
    one. Anything that lasts longer is no transition.
    """

    LASTS, ARRIVES = 4.0, 1.0

    def __init__(self, slots: int) -> None:
        self._until = np.full(slots, -1, np.int64)

    def __call__(
        self, slots: NDArray[np.intp], ends: NDArray[np.int64], within: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Whether transitions count for each window (n,).

        Decided by its slot, its end (ns) and whether it is within a category's limit.

        A slot may occur more than once, in order of time.
        """
        out = np.ones(len(slots), bool)
        left = np.arange(len(slots))
        while len(left):
            _, first = np.unique(slots[left], return_index=True)
            now = left[first]
            s, end = slots[now], ends[now]
            known = np.where(self._until[s] < 0, end + round(self.ARRIVES * SECOND), self._until[s])
            self._until[s] = until = np.where(within[now], end + round(self.LASTS * SECOND), known)
            out[now] = end <= until
            left = np.delete(left, first)
        return out

    def forget(self, slots: Sequence[int]) -> None:
        """Reset the slots, whose tracks are gone."""
        self._until[np.asarray(slots, np.intp)] = -1


KNOWN_MOST = 1000


class NormalByStream:
    """Decides which categories are normal on which stream. `rules` maps stream names, or patterns, to categories.

    The first rule that matches a stream applies; where none matches, all categories are normal. A rule that names no
    category of the support would alarm on everything, so it is taken as all categories. `trouble` reports that, every
    name that is not a category, and categories that are normal on none of `streams`, such as one just accepted. A
    transition between two categories (`transitions`, (P, 2)) counts where both are normal.
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[str]],
        names: Sequence[str],
        transitions: NDArray[np.intp] = NO_TRANSITIONS,
        streams: Sequence[str] = (),
    ) -> None:
        self._rules, self._transitions = rules, transitions
        self._names = np.array(names)
        self._known: dict[str, NDArray[np.bool_]] = {}
        self.trouble = [text for stream, wanted in rules.items() if (text := self._trouble(stream, wanted))]
        self.trouble += self._nowhere(streams)

    def of(self, stream: str) -> NDArray[np.bool_]:
        """The groups (G + P,) that are normal on a stream."""
        row = self._known.get(stream)
        if row is None:
            wanted = next((w for pattern, w in self._rules.items() if fnmatchcase(stream, pattern)), None)
            categories = self._categories(wanted)
            if len(self._known) >= KNOWN_MOST:  # streams may go on coming under new names
                self._known.clear()
            row = self._known[stream] = np.append(categories, categories[self._transitions].all(1))
        return row

    def rows(self, streams: Iterable[str]) -> NDArray[np.bool_]:
        """`of` for several streams: (n, G + P)."""
        return np.array([self.of(s) for s in streams], bool).reshape(-1, len(self._names) + len(self._transitions))

    def together(self) -> NDArray[np.bool_]:
        """Which pairs of categories are normal together on at least one possible stream: (G, G)."""
        wanted: list[Sequence[str] | None] = [*self._rules.values()]
        if "*" not in self._rules:
            wanted.append(None)
        rows = np.array([self._categories(w) for w in wanted])
        return np.asarray((rows[:, :, None] & rows[:, None]).any(0))

    def _categories(self, wanted: Sequence[str] | None) -> NDArray[np.bool_]:
        row = np.isin(self._names, wanted) if wanted is not None else np.ones(len(self._names), bool)
        return row if row.any() else np.ones_like(row)

    def _nowhere(self, streams: Sequence[str]) -> list[str]:
        if not streams:
            return []
        left = self._names[~np.any([self.of(stream)[: len(self._names)] for stream in streams], 0)].tolist()
        what = f"{', '.join(map(repr, left))[:300]} {'is' if len(left) == 1 else 'are'} normal on none of"
        return [f"setting normal: {what} {', '.join(streams)[:300]}"] if left else []

    def _trouble(self, stream: str, wanted: Sequence[str]) -> str:
        unknown = [n for n in wanted if n not in self._names]
        if wanted and not unknown:
            return ""
        kind = "is not a category" if len(unknown) == 1 else "are not categories"
        what = f"{', '.join(map(repr, unknown))} {kind} of the support" if unknown else "no category is named"
        taken = ", so all categories count as normal there" if len(unknown) == len(wanted) else ""
        return f"setting normal: '{stream}': {what}{taken}; there are {', '.join(self._names)[:300]}"
