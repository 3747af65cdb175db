"""Recipe `paper` against the published facts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dct

from edge.clip import Clip
from edge.errors import ClipError
from edge.motion import make_motion
from trainer.paper import PaperConfig, PaperEncoder, embed_paper, mean_euclidean, paper_loss, prepare, train_paper


def test_it_has_as_many_parameters_as_published() -> None:
    assert sum(p.numel() for p in PaperEncoder(24).parameters()) == 199_966


def test_the_embedding_is_one_number_per_joint_and_starts_from_the_dct_of_60_frames() -> None:
    encoder = PaperEncoder(24).eval()
    torch.nn.init.zeros_(encoder.leave.weight)
    joints = np.random.default_rng(0).normal(size=(2, 60, 24, 3)).astype(np.float32)
    # If the network's body gives 0, only the skip remains: the greatest of each joint's 30 coefficients.
    expected = dct(joints, axis=1, norm="ortho")[:, :10].transpose(0, 2, 1, 3).reshape(2, 24, 30).max(-1)
    np.testing.assert_allclose(embed_paper(encoder, joints), expected, atol=1e-4)


def test_clips_are_cut_or_held_at_60_frames_with_the_first_pelvis_at_the_origin() -> None:
    long, short = make_motion("walk", seconds=4), make_motion("walk", seconds=1)
    found = prepare([long, short])
    assert found.shape == (2, 60, 15, 3)
    np.testing.assert_allclose(found[:, 0, 0], 0, atol=1e-6)
    np.testing.assert_allclose(found[0], long.joints[:60] - long.joints[0, 0], atol=1e-6)
    np.testing.assert_allclose(found[1, 31:], np.broadcast_to(found[1, 30], (29, 15, 3)))
    assert np.abs(found[0, -1, 0]).max() > 0.5, "the path is kept"


def test_the_losss_limits() -> None:
    label = torch.arange(9).repeat(2)
    # All alike: each of the 17 others is as likely as the positive.
    assert float(paper_loss(torch.ones(18, 24), label)) == pytest.approx(math.log(17), rel=1e-5)
    # Perfect: the positive at cosine 1, the 16 others at 0 (temperature 1 cannot separate further).
    perfect = torch.eye(9, 24).repeat(2, 1)
    assert float(paper_loss(perfect, label)) == pytest.approx(math.log(math.e + 16) - 1, rel=1e-5)
    assert float(paper_loss(perfect * 7, label)) == pytest.approx(math.log(math.e + 16) - 1, rel=1e-5)


def test_training_lowers_the_loss_and_separates_what_it_saw() -> None:
    clips = [make_motion(n, seconds=3, seed=s) for n in ("walk", "squat", "wave") for s in range(4)]
    label = np.repeat(np.arange(3), 4)
    losses: list[float] = []
    config = PaperConfig(epochs=6, steps=10)
    encoder = train_paper(prepare(clips), label, config, lambda epoch, loss: losses.append(loss))
    assert len(losses) == 6 and losses[-1] < losses[0] < math.log(5) + 0.3
    z = embed_paper(encoder, prepare(clips))
    d = np.stack([mean_euclidean(z, z[label == g]) for g in range(3)], 1)
    assert (d.argmin(1) == label).mean() > 0.9
    again = train_paper(prepare(clips), label, config)
    np.testing.assert_allclose(embed_paper(again, prepare(clips)), z, atol=1e-5)


def test_the_rate_is_constant_and_then_falls_to_nearly_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *a: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    clips = [make_motion("walk", seconds=2, seed=s) for s in range(4)]
    train_paper(prepare(clips), np.array([0, 0, 1, 1]), PaperConfig(epochs=10, steps=1, constant=4))
    np.testing.assert_allclose(rates[:5], 1e-3)
    np.testing.assert_allclose(np.diff(rates[4:]), -1e-3 / 6, rtol=1e-6)
    assert rates[-1] == pytest.approx(1e-3 / 6)


def test_the_score_is_the_mean_euclidean_distance() -> None:
    rng = np.random.default_rng(0)
    e, s = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    expected = [np.mean([math.dist(a, b) for b in s]) for a in e]
    np.testing.assert_allclose(mean_euclidean(e, s), expected, rtol=1e-5)


def test_a_category_of_one_clip_is_refused() -> None:
    clip = make_motion("walk", seconds=2)
    with pytest.raises(ClipError, match="2 clips"):
        train_paper(prepare([clip] * 3), np.array([0, 0, 1]))
    assert isinstance(clip, Clip)
