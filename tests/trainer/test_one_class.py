"""Models of one category: what is far ranks higher, the same seed gives the same model, one clip is too few."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from edge.errors import ClipError
from edge.skeleton import Float
from tests.trainer.made import made
from trainer.baselines import raw_dct
from trainer.one_class import Basis, FlowConfig, OneClass, SvddConfig, fit_flow, fit_gaussian, fit_svdd

Fit = Callable[[Float, Any], OneClass]
BOTH = pytest.mark.parametrize(
    ("fit", "config"),
    [(fit_flow, partial(FlowConfig, steps=40, noise=0.1)), (fit_svdd, SvddConfig)],
    ids=["flow", "svdd"],
)


def gaussian(n: int, seed: int = 0) -> Float:
    return np.random.default_rng(seed).normal(3, [2, 1, 0.5, 0.5], (n, 4)).astype(np.float32)


@BOTH
def test_far_points_rank_higher(fit: Fit, config: Callable[..., Any]) -> None:
    model = fit(gaussian(64), config())
    near, off = model.score(gaussian(50, seed=1)), model.score(gaussian(50, seed=2) + np.float32([0, 8, 8, 8]))
    assert near.shape == (50,) and model.numbers > 0
    assert np.median(near) < off.min()
    assert np.isfinite(model.score(np.full((1, 4), 1e30, np.float32))).all()


def test_a_flow_follows_the_density_it_was_shown() -> None:
    # A good fit must agree with the log-likelihood of the true Gaussian.
    x = gaussian(2000)
    score = fit_flow(x, FlowConfig(steps=150, noise=0.02, learning_rate=1e-2)).score(gaussian(300, seed=1))
    exact = (((gaussian(300, seed=1) - 3) / [2, 1, 0.5, 0.5]) ** 2).sum(1)
    assert np.corrcoef(score, exact)[0, 1] > 0.9


@BOTH
def test_the_seed_alone_decides(fit: Fit, config: Callable[..., Any]) -> None:
    import torch

    x, judged = gaussian(8), gaussian(20, seed=1)
    before = torch.random.get_rng_state()
    first = fit(x, config(seed=5)).score(judged)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(123)
    np.testing.assert_array_equal(fit(x, config(seed=5)).score(judged), first)
    assert not np.array_equal(fit(x, config(seed=6)).score(judged), first)


@BOTH
def test_one_clip_is_too_few(fit: Fit, config: Callable[..., Any]) -> None:
    with pytest.raises(ClipError, match="2 clips or more, found 1"):
        fit(gaussian(1), config())
    with pytest.raises(ClipError, match="not all finite"):
        fit(np.full((3, 4), np.nan, np.float32), config())
    # The same clip three times has no spread, but that is no reason to fail.
    assert np.isfinite(fit(np.repeat(gaussian(1), 3, 0), config()).score(gaussian(5))).all()


def test_the_basis_keeps_what_the_clips_span() -> None:
    x = gaussian(40) @ np.random.default_rng(1).normal(size=(4, 30)).astype(np.float32)
    basis = Basis.fit(x, 64)
    z = basis(x)
    assert z.shape == (40, 4) and basis.numbers == 30 * 5
    np.testing.assert_allclose(np.linalg.norm(z[0] - z[1]), np.linalg.norm(x[0] - x[1]), rtol=1e-4)
    assert Basis.fit(x, 2)(x).shape == (40, 2)
    with pytest.raises(ClipError, match="found 1"):
        Basis.fit(x[:1])


def test_a_flow_tells_made_motions_apart_by_three_clips() -> None:
    clips = {name: raw_dct([made(name, s) for s in range(1, 6)]) for name in ("squat", "wave", "walk")}
    basis = Basis.fit(np.concatenate([c[:3] for c in clips.values()]))
    for name, own in clips.items():
        flow = fit_flow(basis(own[:3]), FlowConfig(steps=50))
        others = np.concatenate([c[3:] for n, c in clips.items() if n != name])
        assert flow.score(basis(own[3:])).max() < flow.score(basis(others)).min(), name


def test_the_gaussian_is_sklearns() -> None:
    from sklearn.covariance import LedoitWolf

    x, judged = gaussian(20), gaussian(50, seed=1)
    model = fit_gaussian(x)
    centred = (x - x.mean(0)).astype(float)
    spread = np.sqrt((centred**2).mean())
    exact = LedoitWolf(assume_centered=True).fit(centred / spread).mahalanobis((judged - x.mean(0)) / spread)
    np.testing.assert_allclose(model.score(judged), exact, rtol=1e-4)
    assert model.numbers == 4 + 10
    with pytest.raises(ClipError, match="2 clips or more"):
        fit_gaussian(x[:1])
