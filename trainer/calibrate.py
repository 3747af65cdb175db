"""What a bundle knows about distances: a cohort of other motions, and how a category's limit follows from it.

Few-shot episodes are drawn with test windows of subjects held out of training; a regression finds how the impostor
level and a category's own spread set the distance that its normal windows reach, and its offset is chosen so that
TARGET of them lie above a score of 1. See `edge.score.limit_of`, which applies it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.metrics import roc_auc_score

from edge.score import match, own_spread
from edge.skeleton import Float
from edge.support import clip_windows
from trainer.config import TrainConfig
from trainer.datasets import ClipSet

COHORT = 384
TARGET = 0.015
"""Share of normal windows above the limit. An alert wants several in a row."""
REACH = 0.95
SHOTS = (1, 3, 5)
TESTS = 400
"""Test windows of each kind per episode, at most."""


def calibrate(
    sets: list[ClipSet], test: list[np.ndarray], embed: Callable[[Float, Float], Float], config: TrainConfig
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of calibration.npz, and figures for the manifest. `test[i]` marks the held-out clips of sets[i]."""
    rng = np.random.default_rng(config.seed)
    c = config.encoder
    windows = [[embed(*clip_windows(clip, c.frames, c.seconds)) for clip in s.clips] for s in sets]
    # Without held-out subjects the training clips must do; the manifest says so.
    honest = any(bool(t.any()) for t in test)
    support_of = [~t if honest else np.ones_like(t) for t in test]
    test_of = [t if honest else np.ones_like(t) for t in test]
    cohort = _cohort(sets, support_of, windows, rng)

    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    auroc = []
    for s, mine, theirs, embedded in zip(sets, support_of, test_of, windows, strict=True):
        for g in range(len(s.names)):
            for shots in SHOTS:
                episode = _episode(s, g, shots, mine, theirs, embedded, cohort, c.temperature, rng)
                if episode is None:
                    continue
                rows[shots > 1].append(episode)
                if shots == 3:
                    auroc.append(roc_auc_score(episode[:, 3], episode[:, 0]))
    out: dict[str, Any] = {"cohort": cohort.astype(np.float16)}
    figures: dict[str, Any] = {
        "subjects": "held out" if honest else "training (none were held out)",
        "target_normal_above_limit": TARGET,
        "window_auroc_3_shot": round(float(np.mean(auroc)), 4) if auroc else None,
    }
    for several, key in ((True, "weights"), (False, "weights_one")):
        weights, found = _fit(rows[several], several)
        out[key] = weights
        figures[key] = {"values": weights.round(4).tolist(), **found}
    buffer = io.BytesIO()
    np.savez(buffer, **out)
    return buffer.getvalue(), figures


def _cohort(
    sets: list[ClipSet], support_of: list[np.ndarray], windows: list[list[Float]], rng: np.random.Generator
) -> Float:
    """Windows of the training subjects, as many of each category as of any other."""
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


def _episode(
    s: ClipSet,
    g: int,
    shots: int,
    mine: np.ndarray,
    theirs: np.ndarray,
    embedded: list[Float],
    cohort: Float,
    temperature: float,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Rows (distance, impostor level, own spread, anomalous) of one draw; None where clips are too few."""
    pool, normal = np.flatnonzero(mine & (s.label == g)), np.flatnonzero(theirs & (s.label == g))
    other = np.flatnonzero(theirs & (s.label != g))
    chosen = rng.choice(pool, min(shots, len(pool)), replace=False)
    normal = np.setdiff1d(normal, chosen)
    if len(chosen) < shots or not len(normal) or not len(other):
        return None
    support = [embedded[i] for i in chosen]
    everything = np.concatenate(support)
    level = float(np.quantile(match(cohort, everything, temperature), 0.05))
    spread = own_spread(support, temperature) or 0.0

    def rows(clips: np.ndarray, anomalous: int) -> np.ndarray:
        pooled = np.concatenate([embedded[i] for i in clips])
        d = match(pooled[rng.permutation(len(pooled))[:TESTS]], everything, temperature)
        return np.column_stack([d, np.full(len(d), level), np.full(len(d), spread), np.full(len(d), anomalous)])

    return np.concatenate([rows(normal, 0), rows(rng.permutation(other)[:120], 1)])


def _fit(episodes: list[np.ndarray], several: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """Weights (offset, impostor, own) of the log limit; without episodes, the impostor level halved.

    Least squares, weights not negative, towards where REACH of each episode's normal windows lie, so that categories
    tight and loose are alike in their false alarms; then the offset for TARGET on average over episodes.
    """
    size = 3 if several else 2
    if not episodes:
        return np.array([np.log(0.5), 1.0, 0.0][:size]), {"episodes": 0}
    levels = np.log(np.array([e[0, 1:size] for e in episodes]) + 1e-3)
    wanted = np.log([np.quantile(e[e[:, 3] == 0, 0], REACH) + 1e-3 for e in episodes])
    one = np.ones((len(episodes), 1))
    weights = nnls(np.hstack([one, -one, levels]), wanted)[0][2:]
    rest = [np.log(e[:, 0] + 1e-6) - x for e, x in zip(episodes, levels @ weights, strict=True)]
    normal = [r[e[:, 3] == 0] for r, e in zip(rest, episodes, strict=True)]
    other = [r[e[:, 3] == 1] for r, e in zip(rest, episodes, strict=True)]
    # Every episode counts alike, however many windows it has.
    offset = _weighted_quantile(normal, 1 - TARGET)
    auroc = roc_auc_score(np.concatenate([e[:, 3] for e in episodes]), np.concatenate(rest))
    return np.concatenate([[offset], weights]), {
        "episodes": len(episodes),
        "pooled_window_auroc": round(float(auroc), 4),
        "normal_windows_above_limit": round(float(np.mean([(r > offset).mean() for r in normal])), 4),
        "anomalous_windows_above_limit": round(float(np.mean([(r > offset).mean() for r in other])), 4),
    }


def _weighted_quantile(groups: list[np.ndarray], q: float) -> float:
    """The `q` quantile of all values, each group weighing the same."""
    values = np.concatenate(groups)
    weight = np.concatenate([np.full(len(g), 1 / len(g)) for g in groups])
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)])
