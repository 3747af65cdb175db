"""The virtual camera, against positions worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge.motion import make_motion
from edge.skeleton import CORE15
from trainer.camera import front, project, views

CLIP = make_motion("wave", seconds=1.5, fps=20, seed=4)


def turned(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    return (CLIP.joints @ about_y).astype(np.float32)


def test_what_is_nearer_is_larger() -> None:
    joints = torch.zeros(1, 1, 15, 3)
    # Around a middle of (1, 2, 5): half a metre aside and up; one metre nearer (−z), one farther, and at the middle.
    joints[0, 0] = torch.tensor([1.0, 2.0, 5.0])
    joints[0, 0, :4] = torch.tensor([[1.5, 2.5, 4.0], [0.5, 1.5, 4.0], [1.5, 2.5, 6.0], [0.5, 1.5, 6.0]])
    seen = project(joints, torch.tensor([4.0]))[0, 0]
    assert seen[:, 2].eq(0).all()
    expected = [[1 + 0.5 * 4 / 3, 2 + 0.5 * 4 / 3], [1 - 0.5 * 4 / 3, 2 - 0.5 * 4 / 3], [1.4, 2.4], [0.6, 1.6], [1, 2]]
    np.testing.assert_allclose(seen[:5, :2], expected, atol=1e-6)


def test_nobody_stands_in_the_lens() -> None:
    joints = torch.zeros(1, 1, 15, 3)
    joints[..., 0, 2], joints[..., 1, 2], joints[..., 0, 0] = -50, 50, 1.0
    seen = project(joints, torch.tensor([3.0]))
    assert torch.isfinite(seen).all() and seen.abs().max() <= 2.1


@pytest.mark.parametrize("degrees", [0, 40, 170, -95])
def test_the_front_is_found_from_any_side(degrees: float) -> None:
    facing = turned(np.rad2deg(front(CLIP.joints)))
    across = facing[:, CORE15.index("r_hip")] - facing[:, CORE15.index("l_hip")]
    assert across[:, 0].mean() > 0.1 and abs(across[:, 2].mean()) < 0.1
    apart = front(turned(degrees)) - (front(CLIP.joints) - np.deg2rad(degrees))
    assert np.cos(apart) == pytest.approx(1, abs=1e-5)


def test_a_view_from_the_front_far_away_is_the_front_without_depth() -> None:
    (seen,) = views([CLIP], yaw=0, pitch=(0, 0), noise=0, distance=(1e6, 1e6))
    facing = turned(np.rad2deg(front(CLIP.joints)))
    np.testing.assert_allclose(seen.joints[..., :2], facing[..., :2], atol=2e-3)
    assert not seen.joints[..., 2].any() and (seen.fps, seen.subject) == (CLIP.fps, CLIP.subject)


def test_a_camera_aside_sees_what_it_would_of_somebody_turned() -> None:
    (seen,) = views([CLIP], aside=50, yaw=0, pitch=(0, 0), noise=0, distance=(1e6, 1e6))
    expected = turned(np.rad2deg(front(CLIP.joints)) + 50)
    np.testing.assert_allclose(seen.joints[..., :2], expected[..., :2], atol=2e-3)


def test_from_above_the_nearer_hand_sinks() -> None:
    toward = CLIP.joints.copy()
    hand = CORE15.index("r_wrist")
    facing = turned(np.rad2deg(front(CLIP.joints)))
    toward = facing.copy()
    toward[:, hand] = toward[:, 0] + np.array([0, 0, -0.6])
    clip = replace(CLIP, joints=toward)
    level, above = (views([clip], yaw=0, pitch=(p, p), noise=0)[0].joints for p in (0, 20))
    drop = (above - level)[:, hand, 1] - (above - level)[:, 0, 1]
    assert drop.max() < -0.1


def test_noise_is_a_share_of_the_body_and_hidden_joints_stay_hidden() -> None:
    visible = CLIP.visible.copy()
    visible[:, 3] = 0
    clip = replace(CLIP, visible=visible, joints=CLIP.joints * (visible > 0)[..., None])
    still, noisy = (views([clip], noise=n, seed=5)[0].joints for n in (0, 0.02))
    off = (noisy - still)[..., :2]
    assert not off[:, 3].any() and not noisy[..., 2].any()
    assert np.delete(off, 3, 1).std() == pytest.approx(0.02 * 1.7, rel=0.1)


def test_every_clip_has_its_own_camera_and_a_seed_repeats_them() -> None:
    first, again, other = (views([CLIP, CLIP], seed=s) for s in (1, 1, 2))
    assert np.array_equal(first[0].joints, again[0].joints) and np.array_equal(first[1].joints, again[1].joints)
    assert not np.array_equal(first[0].joints, first[1].joints)
    assert not np.array_equal(first[0].joints, other[0].joints)
