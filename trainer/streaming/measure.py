"""Measures how good alerts are on streams: frame AUROC, anomalies found and how soon, false alarms per hour.

clips ─► takes ─► watched once ─┬─► each draw of K support clips, and the transitions between the categories, if several
                                │   are normal ─► scores ─► Outcome (a take, a draw, a method)
                                └─► the floor: raw DCT coefficients under the same logic
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.engine import Engine, embed
from edge.score import level_of, margin_of, match
from edge.settings import Settings
from edge.skeleton import Float
from edge.support.enrol import clip_windows
from edge.support.transitions import paired, repeated, transition_windows
from trainer.baselines import raw_windows
from trainer.datasets import ClipSet
from trainer.evaluate import auroc
from trainer.protocols import Protocol
from trainer.streaming.takes import StreamPlan, Take, make_takes
from trainer.streaming.watch import Embed, Run, Watched, alerts, follow, score, watch

OURS, FLOOR = "model", "floor: raw DCT"
FLOOR_TAU = 0.05
STEP = 0.05
"""Seconds between two judged frames."""
FRAME_SIGMA = 0.5
"""σ in seconds of the weight that a window has in a frame's score, by the distance of its middle from the frame."""
GRID = np.exp(np.arange(-0.7, 0.75, 0.1))
"""Thresholds of the curves, as multiples of the default one; the floor's are further apart."""
LONG = 1.5
"""An anomaly of at least this many seconds is expected to be reported."""
FOUND_BY = 2.0
"""An alert up to this many seconds after an anomaly's end still reports it: until then windows contain the anomaly."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of judging one take against one draw.

    auroc is by frames in hindsight, auroc_at_once by what is known as each frame comes; hours of clean activity. false
    (T,) counts the alarms in the clean part at each threshold of `GRID`; length (A,) of each anomaly in seconds, delay
    (T, A) after its onset, infinite if it was not reported.
    """

    method: str
    normal: str
    person: str
    shots: int
    auroc: float
    auroc_at_once: float
    hours: float
    false: NDArray[np.intp]
    length: NDArray[np.float64]
    category: tuple[str, ...]
    delay: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Scored:
    """A take with its scores against one draw, before they are relative to what is usual."""

    take: Take
    shots: int
    run: Run
    expected: NDArray[np.float64]


class _FeatureCache:
    """Features of clips, and of the transitions between two clips, by clip number and from every encoder."""

    def __init__(self, clips: ClipSet, encoders: Sequence[Embed], frames: int, seconds: float) -> None:
        self._clips, self._encoders, self._window = clips.clips, encoders, (frames, seconds)
        self.of, self.between = cache(self._of), cache(self._between)

    def _of(self, i: int) -> list[Float]:
        windows = clip_windows(self._clips[i], *self._window)
        return [e(*windows) for e in self._encoders]

    def _between(self, i: int, j: int) -> list[Float]:
        windows = transition_windows(self._clips[i], self._clips[j], *self._window)
        return [e(*windows) for e in self._encoders]


def stream_outcomes(
    clips: ClipSet,
    protocol: Protocol,
    bundle: Bundle,
    engine: Engine,
    *,
    plan: StreamPlan,
    shots: Sequence[int],
    draws: int,
    seed: int,
    settings: Settings,
    normals: int = 1,
    floor: bool = True,
    categories: set[str] | None = None,
    report: Callable[[str], None] = lambda person: None,
) -> Iterator[Outcome]:
    """Judge every take of the judged people against `draws` supports of each number of shots, person by person.

    If `categories` is given, only these are the normal one in turn; all others can still be anomalies.
    """
    m = bundle.manifest
    encoders: list[Embed] = [partial(embed, engine)] + [raw_windows] * floor
    features = _FeatureCache(clips, encoders, m.frames, m.seconds)
    names = np.array(clips.names)[clips.label]
    for person in sorted(set(clips.subjects[protocol.test].tolist())):
        mine = protocol.test & (clips.subjects == person)
        takes = list(make_takes(clips, mine, plan, normals=normals, seed=seed))
        takes = [t for t in takes if not categories or t.normal[0] in categories]
        if not takes:
            continue
        report(person)
        watched = watch(takes, encoders, frames=m.frames, seconds=m.seconds, s=settings)
        supports = [_supports(take, clips, names, protocol, shots, draws, seed) for take in takes]
        for n, method in enumerate([OURS, FLOOR][: len(encoders)]):
            scored = [
                _score(take, w, chosen, features, n, bundle, settings)
                for take, w, draw in zip(takes, watched, supports, strict=True)
                for chosen in draw
            ]
            yield from _outcomes(method, scored, settings, m.seconds)


def _supports(
    take: Take, clips: ClipSet, names: NDArray[np.str_], protocol: Protocol, shots: Sequence[int], draws: int, seed: int
) -> list[list[NDArray[np.intp]]]:
    """Draw supports: for each number of shots that every normal category allows, clips of each category."""
    rng = np.random.default_rng((seed, 1, clips.names.index(take.normal[0])))
    pools = [np.flatnonzero(protocol.pool & (names == g) & (clips.subjects != take.person)) for g in take.normal]
    possible = [k for k in shots if min(map(len, pools)) >= k]
    return [[rng.choice(pool, k, replace=False) for pool in pools] for k in possible for _ in range(draws)]


def _score(
    take: Take,
    w: Watched,
    chosen: Sequence[NDArray[np.intp]],
    features: _FeatureCache,
    n: int,
    bundle: Bundle,
    s: Settings,
) -> _Scored:
    """Score the take as the device would, up to the step that makes scores relative to what is usual.

    `chosen` holds the numbers of each normal category's clips, `n` is the number of the encoder.
    """
    calibration, tau = bundle.calibration(), bundle.manifest.temperature if n == 0 else FLOOR_TAU
    support = [[features.of(i)[n] for i in members.tolist()] for members in chosen]
    transitions = [paired(a.tolist(), b.tolist()) for a, b in combinations(chosen, 2)] + [
        repeated(a.tolist()) for a in chosen
    ]
    support += [[features.between(i, j)[n] for i, j in pairs] for pairs in transitions[: s.max_transitions]]
    # The floor has no calibration: its level comes from the clips' distances to each other, enough for its curve.
    margin = np.array([margin_of(len(g), calibration) if n == 0 else 1.0 for g in support])
    level = np.array([level_of(g, calibration, tau) if n == 0 else _floor_level(g) for g in support])
    found, expected = score(
        w.features[n],
        np.zeros(len(w.end), np.intp),
        w.end,
        support,
        categories=len(chosen),
        level=level,
        margin=margin,
        temperature=tau,
    )
    found[w.seen < s.min_visible] = np.nan
    return _Scored(take, len(chosen[0]), Run(w.end, found, w.seen), expected)


def _floor_level(support: list[Float]) -> float:
    """The floor's level: the median distance of the support's windows to the other clips, or to its own if alone."""
    rest = [np.concatenate(support[:i] + support[i + 1 :] or [s]) for i, s in enumerate(support)]
    apart = [match(s, r, FLOOR_TAU) for s, r in zip(support, rest, strict=True)]
    return float(np.median(np.concatenate(apart))) + 1e-3


def _outcomes(method: str, scored: Sequence[_Scored], s: Settings, window: float) -> Iterator[Outcome]:
    runs = follow([j.run for j in scored], [j.expected for j in scored])
    grid = GRID if method == OURS else GRID**2 * 1.6
    raised = [alerts(runs, s, float(x)) for x in grid]
    for i, (j, run) in enumerate(zip(scored, runs, strict=True)):
        t = np.arange(window, j.take.seconds, STEP)
        anomalous = np.zeros(len(t), bool)
        for span in j.take.spans:
            anomalous |= (t >= span.start) & (t < span.end)
        auc = [
            auroc(x[~anomalous], x[anomalous]) if anomalous.any() else float("nan")
            for x in (frame_scores(run, t, window), newest_scores(run, t))
        ]
        times = [r[i] for r in raised]
        yield Outcome(
            method,
            j.take.normal[0],
            j.take.person,
            j.shots,
            auc[0],
            auc[1],
            (j.take.clean - window) / 3600,
            np.array([int((r <= j.take.clean).sum()) for r in times]),
            np.array([span.end - span.start for span in j.take.spans]),
            tuple(span.category for span in j.take.spans),
            np.array([[delay_of(r, span.start, span.end) for span in j.take.spans] for r in times]),
        )


def delay_of(raised: NDArray[np.float64], start: float, end: float) -> float:
    """Seconds from the anomaly's onset to the first alert that reports it; infinite if there is none."""
    here = raised[(raised > start) & (raised <= end + FOUND_BY)]
    return float(here[0] - start) if len(here) else float("inf")


def frame_scores(run: Run, t: NDArray[np.float64], window: float) -> NDArray[np.float64]:
    """Score each frame in hindsight: the mean score of the windows that contain it, the nearest weighted most."""
    fine = np.isfinite(run.score)
    middle, score = run.end[fine] - window / 2, run.score[fine].astype(np.float64)
    if not len(middle):
        return np.zeros(len(t))
    at = np.searchsorted(middle, t)
    reach = np.arange(-6, 7)
    near = np.clip(at[:, None] + reach, 0, len(middle) - 1)
    apart = middle[near] - t[:, None]
    weight = np.exp(-0.5 * (apart / FRAME_SIGMA) ** 2) * (np.abs(apart) <= window / 2) + 1e-9
    return np.asarray((weight * score[near]).sum(1) / weight.sum(1))


def newest_scores(run: Run, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score each frame by what is known as it comes: the score of the newest window."""
    fine = np.isfinite(run.score)
    end, score = run.end[fine], run.score[fine].astype(np.float64)
    if not len(end):
        return np.zeros(len(t))
    return score[np.clip(np.searchsorted(end, t + 1e-9, side="right") - 1, 0, len(end) - 1)]


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold's false alarms per camera-hour, shares of long and of short anomalies found, and median delay."""

    threshold: float
    false_alarms: float
    recall: float
    recall_short: float
    delay: float


def curve(outcomes: Sequence[Outcome]) -> list[Point]:
    """Compute the point of each threshold over all outcomes, which must be of one method."""
    hours = sum(o.hours for o in outcomes)
    false = np.sum([o.false for o in outcomes], 0) / hours
    length = np.concatenate([o.length for o in outcomes])
    delay = np.concatenate([o.delay for o in outcomes], 1)
    long = length >= LONG
    grid = GRID if outcomes[0].method == OURS else GRID**2 * 1.6
    return [
        Point(
            float(x), float(f), _share(d[long]), _share(d[~long]), float(np.median(d[long])) if long.any() else np.inf
        )
        for x, f, d in zip(grid, false, delay, strict=True)
    ]


def _share(delay: NDArray[np.float64]) -> float:
    return float(np.isfinite(delay).mean()) if len(delay) else float("nan")


DEFAULT = int(np.abs(GRID - 1).argmin())


def at_rate(points: Sequence[Point], rate: float) -> Point:
    """The first point on the falling side of a curve with at most `rate` false alarms per hour; else the last point."""
    most = int(np.argmax([p.false_alarms for p in points]))
    return next((p for p in points[most:] if p.false_alarms <= rate), points[-1])
