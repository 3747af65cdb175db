"""Computes from an evaluation's episodes the ROC curves, and which categories are mistaken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from edge.skeleton import Float
from trainer.evaluate import Distance, Episode, auroc

GRID = np.linspace(0, 1, 401)
"""The false-alarm rates at which ROC curves are averaged."""


def roc_curves(found: Sequence[Episode]) -> dict[str, NDArray[np.float64]]:
    """Average each category's ROC over its draws at equal false-alarm rates: the detection rate at each rate of GRID.

    Anomalous is the positive class: detection is the share of other categories' clips beyond a limit, the false-alarm
    rate the share of the category's own clips beyond it.
    """
    curves: dict[str, list[NDArray[np.float64]]] = {}
    for e in found:
        false, true, _ = roc_curve(e.anomalous, e.distance)
        # At a rate with several detections, np.interp takes the last, which is the highest.
        curves.setdefault(e.category, []).append(np.interp(GRID, false, true))
    return {name: np.mean(c, 0) for name, c in curves.items()}


@dataclass(frozen=True, slots=True)
class Confusion:
    """Clips of `other` that look like `normal`: the AUROC between these two categories, and two clips that show it.

    `clip` is the judged clip of `other` that comes nearest on average. `like` is the clip of `normal` nearest to it,
    among those drawn as support.
    """

    normal: str
    other: str
    auroc: float
    clip: int
    like: int


def confusions(
    embedding: Float, category: NDArray[np.str_], found: Sequence[Episode], distance: Distance, most: int = 6
) -> list[Confusion]:
    """Find the pairs of categories told apart worst, worst first; a pair is listed once, in its worse direction."""
    by_name: dict[str, list[Episode]] = {}
    for e in found:
        by_name.setdefault(e.category, []).append(e)
    pairs: list[tuple[float, str, str]] = []
    for name, own in by_name.items():
        for other in sorted(set(category.tolist()) - {name}):
            values = []
            for e in own:
                its = e.distance[category[e.judged] == other]
                if len(its):
                    values.append(auroc(e.distance[~e.anomalous], its))
            if values:
                pairs.append((float(np.mean(values)), name, other))
    out: list[Confusion] = []
    for value, name, other in sorted(pairs):
        if len(out) == most or value >= 1:
            break
        if any({c.normal, c.other} == {name, other} for c in out):
            continue
        own = by_name[name]
        sums: dict[int, list[float]] = {}
        for e in own:
            for i, d in zip(e.judged.tolist(), e.distance.tolist(), strict=True):
                if category[i] == other:
                    sums.setdefault(i, []).append(d)
        clip = min(sums, key=lambda i: float(np.mean(sums[i])))
        support = np.unique(np.concatenate([e.support for e in own]))
        near = [float(distance(embedding[clip][None], embedding[i][None])[0]) for i in support]
        out.append(Confusion(name, other, value, clip, int(support[int(np.argmin(near))])))
    return out
