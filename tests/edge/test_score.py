"""The limit and the score against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from edge.score import Scorer, limit_of, match, own_spread
from edge.skeleton import Float

TAU = 0.05


def units(n: int, seed: int, spread: float = 1.0, d: int = 16) -> Float:
    rng = np.random.default_rng(seed)
    x = np.eye(d)[0] + spread * rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_match_is_the_softmax_weighted_mean_of_cosine_distances() -> None:
    e, s = units(4, 0), units(6, 1)
    for i, found in enumerate(match(e, s, TAU)):
        d = [1 - float(e[i] @ row) for row in s]
        w = [np.exp(-x / TAU) for x in d]
        assert found == pytest.approx(sum(a * b for a, b in zip(w, d, strict=True)) / sum(w), rel=1e-4)


def test_match_lies_between_the_nearest_and_the_mean_and_repeated_rows_change_nothing() -> None:
    e, s = units(20, 0), units(5, 1)
    d = 1 - e @ s.T
    found = match(e, s, TAU)
    assert (found >= d.min(1) - 1e-6).all() and (found <= d.mean(1) + 1e-6).all()
    np.testing.assert_allclose(match(e, np.concatenate([s, s, s]), TAU), found, atol=1e-9)


def test_the_own_spread_leaves_each_clip_out() -> None:
    a, b, c = (units(5, k, 0.3) for k in range(3))
    d = np.concatenate(
        [
            match(a, np.concatenate([b, c]), TAU),
            match(b, np.concatenate([a, c]), TAU),
            match(c, np.concatenate([a, b]), TAU),
        ]
    )
    assert own_spread([a, b, c], TAU) == pytest.approx(np.quantile(d, 0.9))
    assert own_spread([a], TAU) is None


def test_the_limit_is_the_calibrations_formula() -> None:
    calibration = {
        "cohort": units(50, 9).astype(np.float16),
        "weights": np.array([-0.3, 0.6, 0.2]),
        "weights_one": np.array([-0.1, 0.9]),
    }
    clips = [units(5, k, 0.3) for k in range(3)]
    level = np.quantile(match(calibration["cohort"].astype(np.float32), np.concatenate(clips), TAU), 0.05)
    spread = own_spread(clips, TAU)
    assert spread is not None
    expected = np.exp(-0.3 + 0.6 * np.log(level + 1e-3) + 0.2 * np.log(spread + 1e-3))
    assert limit_of(clips, calibration, TAU) == pytest.approx(expected)
    level = np.quantile(match(calibration["cohort"].astype(np.float32), clips[0], TAU), 0.05)
    assert limit_of(clips[:1], calibration, TAU) == pytest.approx(np.exp(-0.1 + 0.9 * np.log(level + 1e-3)))


def test_the_score_is_the_least_distance_in_units_of_its_limit() -> None:
    score, nearest = Scorer(np.array([0.5, 0.1]))(np.array([[0.25, 0.2], [0.5, 0.01]], np.float32))
    np.testing.assert_allclose(score, [0.5, 0.1], rtol=1e-6)
    assert nearest.tolist() == [0, 1]
