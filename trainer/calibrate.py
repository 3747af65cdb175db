"""Measures what a bundle states about distances: a cohort, how limits follow from clips, and the false-alarm rates.

    people held out ─► streams of uninterrupted normal activity ─► scores against supports of the other people
                        ├─► regression: the level of normal distances, from what enrolment knows of a support
                        └─► the real alert logic, at many thresholds ─► false alarms per camera-hour

The margin between level and limit is then chosen, for each number of clips, so that a score of 1 gives TARGET false
alarms an hour. `edge.score` applies the results: `level_of`, `margin_of`, and `threshold_of` for another rate.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from edge.clip import Clip
from edge.score import SENSITIVITY, match, spreads
from edge.settings import Settings
from edge.skeleton import Float
from edge.support.enrol import clip_windows
from edge.support.transitions import repeated, transition_windows
from trainer.config import TrainConfig
from trainer.datasets import ClipSet
from trainer.encoder import EncoderConfig
from trainer.streaming.takes import StreamPlan, make_takes
from trainer.streaming.watch import Embed, Run, Watched, alerts, follow, watch

COHORT = 384
DEFAULTS = Settings.model_validate({})
TARGET = SENSITIVITY["default"]
"""False alarms per camera-hour at the default threshold."""
SHOTS = (1, 3, 5, 10)
PLAN = StreamPlan(clean=60.0, anomalies=0)
TRIMMED = 0.15
DEFAULT_MARGIN = 1.5
"""The margin of a bundle for which nothing could be measured."""
THRESHOLDS = np.arange(0.0, 1.5, 0.05)
"""Logarithms of scores relative to the level of normal, at which false alarms are counted."""
NEAR_LIMIT = np.arange(-0.5, 0.55, 0.05)
"""Logarithms of scores relative to the limit, at which false alarms are counted."""
LOWEST_RATE = 0.25
"""Rates below this are raised to it: a few hours of streams cannot show so low a rate."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One take against one draw of support: what enrolment knows of the support (see `spreads`), and the distances.

    `between` holds the same two things for the transitions from one support clip to the next, which the engine matches
    too.
    """

    shots: int
    known: NDArray[np.float64]
    run: Run
    between: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def level(self) -> float:
        """The level of the take's normal distances, as a logarithm."""
        return float(np.log(np.median(self.run.score) + 1e-3))


def calibrate(
    sets: list[ClipSet], test: list[np.ndarray], embed: Embed, config: TrainConfig
) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of calibration.npz, and figures for the manifest.

    `test[i]` marks the held-out clips of sets[i].
    """
    rng = np.random.default_rng(config.seed)
    c = config.encoder
    windows = [[embed(*clip_windows(clip, c.frames, c.seconds)) for clip in s.clips] for s in sets]
    # Without held-out subjects the training clips have to serve; the manifest says so.
    any_held_out = any(bool(t.any()) for t in test)
    support_of = [~t if any_held_out else np.ones_like(t) for t in test]
    test_of = [t if any_held_out else np.ones_like(t) for t in test]
    cohort = _cohort(sets, support_of, windows, rng)
    episodes: list[Episode] = []
    for s, mine, theirs, embedded in zip(sets, support_of, test_of, windows, strict=True):
        takes = list(make_takes(s, theirs, PLAN, seed=config.seed))
        if not takes:
            continue
        watched = watch(takes, [embed], frames=c.frames, seconds=c.seconds, s=DEFAULTS)
        between = cache(partial(_between, s.clips, embed, c))
        for take, w in zip(takes, watched, strict=True):
            pool = np.flatnonzero(mine & (s.label == s.names.index(take.normal[0])))
            if not any_held_out:  # else the person would be judged by their own clips
                pool = pool[s.subjects[pool] != take.person]
            episodes += _episodes(w, pool, embedded, between, cohort, c.temperature, rng)
    out, figures = fit(episodes)
    out["cohort"] = cohort.astype(np.float16)
    buffer = io.BytesIO()
    np.savez(buffer, **out)
    return buffer.getvalue(), {"subjects": "held out" if any_held_out else "training (none were held out)", **figures}


def _between(clips: Sequence[Clip], embed: Embed, c: EncoderConfig, i: int, j: int) -> Float:
    """Features (N, D) of the transition between two clips."""
    return embed(*transition_windows(clips[i], clips[j], c.frames, c.seconds))


def _cohort(
    sets: list[ClipSet], support_of: list[np.ndarray], windows: list[list[Float]], rng: np.random.Generator
) -> Float:
    """Draw windows of the training subjects, equally many from each category."""
    groups = [
        (i, np.flatnonzero(keep & (s.label == g)))
        for i, (s, keep) in enumerate(zip(sets, support_of, strict=True))
        for g in range(len(s.names))
    ]
    groups = [(i, members) for i, members in groups if len(members)]
    chosen = []
    for n in range(COHORT):
        i, members = groups[n % len(groups)]
        clip = windows[i][rng.choice(members)]
        chosen.append(clip[rng.integers(len(clip))])
    return np.stack(chosen)


def _episodes(
    watched: Watched,
    pool: NDArray[np.intp],
    embedded: Sequence[Float],
    between: Callable[[int, int], Float],
    cohort: Float,
    temperature: float,
    rng: np.random.Generator,
) -> list[Episode]:
    """Match the take with one draw for each number of shots that the pool allows."""
    out = []
    for shots in SHOTS:
        if len(pool) < shots or not len(watched.end):
            continue
        chosen: list[int] = rng.choice(pool, shots, replace=False).tolist()
        groups = [embedded[i] for i in chosen], [between(i, j) for i, j in repeated(chosen)]
        own, transitions = (
            (spreads(g, cohort, temperature), match(watched.features[0], np.concatenate(g), temperature))
            for g in groups
        )
        run = Run(watched.end, own[1].astype(np.float32), watched.seen)
        out.append(Episode(shots, own[0], run, transitions))
    return out


def fit(episodes: Sequence[Episode]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit the constants of level and margin, and the rates; return them, and figures about them.

    Without episodes: default constants, and no rates.
    """
    weights: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for several, key in ((True, "level"), (False, "level_one")):
        mine = [e for e in episodes if (e.shots > 1) == several]
        weights[key], figures[key] = _level(mine, 3 if several else 2)
    if not episodes:
        return {**weights, "margin": np.array([[1.0, DEFAULT_MARGIN]])}, figures
    runs = [replace(e.run, score=_relative(e, weights)) for e in episodes]
    usual = follow(runs, [1.0] * len(runs))
    shots = [e.shots for e in episodes]
    offset = {}
    for k in sorted(set(shots)):
        some = [r for r, s in zip(usual, shots, strict=True) if s == k]
        grid, rate = _falling_rates(some, THRESHOLDS)
        offset[k] = float(np.interp(-np.log(TARGET), -np.log(rate), grid))
    # From here on thresholds are relative to each run's own limit, for all numbers of clips together.
    own = [
        replace(r, score=(r.score / np.exp(offset[s])).astype(np.float32)) for r, s in zip(usual, shots, strict=True)
    ]
    grid, rate = _falling_rates(own, NEAR_LIMIT)
    kept = np.append(True, np.diff(rate) < 0)
    alarms, hours = _count(own, 0.0), _hours(own)
    figures |= {
        "hours": round(float(hours.sum()), 2),
        "false_alarms_per_hour": round(float(alarms.sum() / hours.sum()), 2),
        "without_the_worst": round(_rate(alarms, hours), 2),
        "margin": {str(k): round(float(np.exp(x)), 3) for k, x in offset.items()},
    }
    return {
        **weights,
        "margin": np.array([[k, np.exp(x)] for k, x in offset.items()]),
        "error": np.array([figures[k].get("error", 0.0) for k in ("level", "level_one")]),
        "rates": np.column_stack([np.exp(grid), rate])[kept],
    }, figures


def _relative(e: Episode, weights: Mapping[str, NDArray[np.float64]]) -> Float:
    """Divide distances (W,) by the level that enrolment expects, of the category or of its transitions: the lesser.

    That transitions count only for some time (`edge.score.TransitionTimer`) is left out: normal windows keep coming
    within the limit.
    """
    out = np.full(len(e.run.score), np.inf, np.float32)
    for known, distance in ((e.known, e.run.score), e.between):
        w = weights["level" if len(known) == 3 else "level_one"]
        np.minimum(out, distance / np.exp(w[0] + known @ w[1:]), out=out, casting="same_kind")
    return out


def _level(episodes: Sequence[Episode], size: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Fit weights (1 + size,) that predict the logarithm of a take's level; only the first may be negative.

    Without episodes the level is twice the distances among the support's own windows.
    """
    if not episodes:
        return np.array([np.log(2.0), 0.0, 1.0, *[0.0] * (size - 2)]), {"episodes": 0}
    known = np.array([e.known for e in episodes])
    wanted = np.array([e.level for e in episodes])
    one = np.ones((len(episodes), 1))
    found = nnls(np.hstack([one, -one, known]), wanted)[0]
    weights = np.array([found[0] - found[1], *found[2:]])
    error = wanted - weights[0] - known @ weights[1:]
    return weights, {
        "episodes": len(episodes),
        "values": weights.round(4).tolist(),
        "error": round(float(error.std()), 3),
        "error_without": round(float(wanted.std()), 3),
    }


def _hours(runs: Sequence[Run]) -> NDArray[np.float64]:
    return np.array([r.end[-1] - r.end[0] for r in runs]) / 3600


def _count(runs: Sequence[Run], threshold: float) -> NDArray[np.intp]:
    """Count each run's alerts at a threshold, given as a logarithm."""
    return np.array([len(a) for a in alerts(runs, DEFAULTS, float(np.exp(threshold)))])


def _falling_rates(runs: Sequence[Run], grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of thresholds, and false alarms per hour at them: from the highest rate on, and made never to rise.

    Below the threshold with the highest rate, alerts hardly ever end, so there are few of them.
    """
    hours = _hours(runs)
    rate = np.array([_rate(_count(runs, x), hours) for x in grid])
    first = int(rate.argmax())
    return grid[first:], np.maximum(np.minimum.accumulate(rate[first:]), LOWEST_RATE)


def _rate(alarms: NDArray[np.intp], hours: NDArray[np.float64]) -> float:
    """False alarms per hour, without the TRIMMED share of runs that have the most.

    Where a person does something different from the others under the same name, no threshold helps, and such runs would
    decide the threshold for all.
    """
    keep = np.argsort(alarms / hours, kind="stable")[: max(1, round(len(alarms) * (1 - TRIMMED)))]
    return float(alarms[keep].sum() / hours[keep].sum())
