"""From distances to scores: the reference form of the match, and what makes one category's score like another's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge.skeleton import Float


def match(embedding: Float, support: Float, temperature: float) -> NDArray[np.float64]:
    """The distance of each embedding (N, D) to one category's support (K, D), as the graph computes it: (N,).

    d_k = 1 − cos, Σ w_k d_k with w = softmax(−d / τ). Used where the graph is not at hand: leave-one-out at
    enrolment, the cohort, evaluation. A test holds it equal to the graph's own output.
    """
    d = 1 - embedding.astype(np.float64) @ support.astype(np.float64).T
    w = np.exp((d.min(-1, keepdims=True) - d) / temperature)
    return np.asarray((d * w).sum(-1) / w.sum(-1))


def limit_of(support: list[Float], calibration: Mapping[str, NDArray[np.floating]], temperature: float) -> float:
    """The distance at which a category's windows stop being normal: where the score is 1.

    `support` holds one (k, D) array of window embeddings per clip. Two things are known of a category without any
    other recording of it: how far its own clips lie from each other (leave one clip out), and how near the motions
    of other people and actions come to it (the bundle's cohort, as in speaker verification's score normalisation,
    Reynolds et al. 2000). The bundle's regression weighs the two; its constants come from subjects held out of
    training (`trainer/calibrate.py`).
    """
    everything = np.concatenate(support)
    impostor = float(np.quantile(match(calibration["cohort"].astype(np.float32), everything, temperature), 0.05))
    own = own_spread(support, temperature)
    weights = calibration["weights_one" if own is None else "weights"]
    features = np.log([impostor + 1e-3] + ([] if own is None else [own + 1e-3]))
    return float(np.exp(weights[0] + features @ weights[1:]))


def own_spread(support: list[Float], temperature: float) -> float | None:
    """The 90 % quantile of the windows' distances to the other clips of their category; None for a lone clip."""
    if len(support) < 2:
        return None
    left_out = [
        match(clip, np.concatenate(support[:i] + support[i + 1 :]), temperature) for i, clip in enumerate(support)
    ]
    return float(np.quantile(np.concatenate(left_out), 0.9))


class Scorer:
    """Distances (B, G) → score (B,) relative to the limit of the nearest category, and which one that is (B,)."""

    def __init__(self, limit: NDArray[np.floating]) -> None:
        self.limit = np.asarray(limit, np.float32)

    def __call__(self, distance: Float) -> tuple[Float, NDArray[np.intp]]:
        relative = distance / self.limit
        nearest = relative.argmin(1)
        return relative[np.arange(len(relative)), nearest], nearest
