"""Clips made by a trained motion model: what of the source stays, and what the seed decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge.clip import Clip
from edge.errors import SettingsError
from tests.trainer.made import made, windows
from trainer.datasets import ClipSet
from trainer.motion.fit import MotionTrainer, make_model
from trainer.motion.generate import COMPLETE, GENERATED, Recipe, generate
from trainer.motion.model import MotionModel, open_motion

from .small import noise_of, silent, tiny

JOINTS, VISIBLE = windows("walk", "wave", "fall", frames=24)


@pytest.fixture(scope="module")
def model(sets: list[ClipSet], tmp_path_factory: pytest.TempPathFactory) -> MotionModel:
    trainer = MotionTrainer(sets, tiny(steps=3))
    trainer.run(silent)
    root = tmp_path_factory.mktemp("motion")
    make_model(trainer, root)
    return open_motion(root)


def test_the_kept_part_of_a_completion_is_the_original(model: MotionModel) -> None:
    clips = [made("walk", 1, seconds=0.9), made("wave", 2, seconds=3.0)]
    first, second = generate(model, clips, recipe=COMPLETE)
    half = 8  # of 19 frames: those up to the model's twelfth
    np.testing.assert_array_equal(first.joints[:half], clips[0].joints[:half])
    assert np.abs(first.joints[half + 2 :] - clips[0].joints[half + 2 :]).max() > 0.05
    assert first.joints.shape == clips[0].joints.shape
    # A long clip gives a stretch of the model's second: its first half is somewhere in the original.
    assert second.joints.shape == (21, 15, 3)
    apart = [np.abs(second.joints[:half] - clips[1].joints[i : i + half]).max() for i in range(40)]
    assert min(apart) == 0


def test_what_follows_the_kept_part_follows_on(model: MotionModel) -> None:
    body, _ = model.net.space.body(JOINTS, VISIBLE)
    new = model.net.remake(body, 12, noise_of(0), strength=1.0)
    assert torch.equal(new[:, :12], body[:, :12])
    step = (new[:, 12] - new[:, 11]).abs().amax()
    assert step < 0.35 and (new[:, 13:] - body[:, 13:]).abs().amax() > 0.1


def test_a_small_strength_changes_little_and_a_greater_one_more(model: MotionModel) -> None:
    clip = made("wave", 1, seconds=0.9)
    smooth, little, much = (
        generate(model, [clip], recipe=Recipe(strength=s))[0].joints - clip.joints for s in (0.01, 0.1, 0.6)
    )
    assert np.abs(smooth).mean() < np.abs(little).mean() < np.abs(much).mean()
    assert np.abs(smooth).mean() < 0.03


def test_a_generated_clip_stands_where_its_source_did(model: MotionModel) -> None:
    clip = made("wave", 2, seconds=0.9)
    there = replace(clip, joints=(clip.joints * 1.5 + [30, 1, -20]).astype(np.float32))
    found = generate(model, [there], recipe=Recipe(strength=0.2))[0]
    assert np.abs(found.joints.mean((0, 1)) - there.joints.mean((0, 1))).max() < 0.15
    assert np.ptp(found.joints[..., 1]) == pytest.approx(np.ptp(there.joints[..., 1]), rel=0.15)
    assert (found.fps, found.subject) == (there.fps, there.subject)
    assert found.source == f"{GENERATED}{model.name}, strength 0.2, keep 0, seed 0"


def test_what_is_hidden_stays_hidden(model: MotionModel) -> None:
    clip = made("wave", 2, seconds=0.9)
    visible = clip.visible.copy()
    visible[:, 5], visible[3:6, 8] = 0, 0
    clip = replace(clip, visible=visible, joints=np.where(visible[..., None] > 0, clip.joints, 0))
    found = generate(model, [clip])[0]
    np.testing.assert_array_equal(found.visible, visible)
    assert (found.joints[visible == 0] == 0).all() and np.isfinite(found.joints).all()


def test_the_seed_decides_and_the_company_does_not(model: MotionModel) -> None:
    a, b = made("walk", 1, seconds=0.9), made("squat", 2)
    one = generate(model, [a, b], 2)
    same = generate(model, [a, b], 2)
    assert all(np.array_equal(x.joints, y.joints) for x, y in zip(one, same, strict=True))
    alone = generate(model, [b], 1)[0]
    np.testing.assert_allclose(alone.joints, one[2].joints, atol=1e-4)
    assert not np.allclose(one[0].joints, one[1].joints, atol=1e-2)
    assert not np.allclose(generate(model, [a], seed=1)[0].joints, one[0].joints, atol=1e-2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(model, [a])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("given", [{"strength": 0.0}, {"strength": 1.5}, {"keep": 0.95}])
def test_a_recipe_out_of_range_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        Recipe(**given)  # type: ignore[arg-type]


def test_a_clip_of_two_frames_can_be_varied(model: MotionModel) -> None:
    base = made("stand", 1)
    short = Clip(base.joints[:2], base.visible[:2], 20)
    assert generate(model, [short], recipe=COMPLETE)[0].joints.shape == (2, 15, 3)
