"""The conditions that accuracy is measured under do what their names say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.conditions import CONDITIONS, LEGS, jitter, other_bodies, sampled, tilted
from edge.clip import Clip
from edge.skeleton import PARENTS


def clips() -> list[Clip]:
    """Two bodies that move on curves of their own, one joint of the second hidden for a while."""
    rng = np.random.default_rng(4)
    out = []
    for frames in (60, 45):
        t = np.arange(frames)[:, None, None] / 30
        joints = rng.normal(0, 0.4, (1, 15, 3)) + 0.2 * np.sin(2 * t + rng.uniform(0, 6, (1, 15, 3)))
        out.append(Clip(joints.astype(np.float32), np.ones((frames, 15), np.float32), 30.0, "1"))
    out[1].visible[:10, 5] = 0
    out[1].joints[:10, 5] = 0
    return out


def bones(joints: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_the_same_each_time_and_leaves_what_it_was_given(name: str) -> None:
    given, change = clips(), CONDITIONS[name].judged
    first, second = change(given, 1), change(given, 1)
    for a, b, c, untouched in zip(first, second, given, clips(), strict=True):
        np.testing.assert_array_equal(a.joints, b.joints)
        np.testing.assert_array_equal(c.joints, untouched.joints)
        np.testing.assert_array_equal(c.visible, untouched.visible)
        assert a.joints.dtype == np.float32 and a.subject == c.subject
        assert not np.allclose(a.joints[:15].sum(), c.joints[:15].sum())


def test_legs_out_of_view_hides_them_and_nothing_else() -> None:
    for c in CONDITIONS["legs out of view"].judged(clips(), 0):
        assert not c.visible[:, LEGS].any() and not c.joints[:, LEGS].any()
        assert c.visible[20:, [j for j in range(15) if j not in LEGS]].all()


def test_a_third_is_five_joints_throughout_or_in_each_frame() -> None:
    throughout = CONDITIONS["a third hidden throughout"].judged(clips(), 0)[0]
    assert set(throughout.visible.sum(0)) == {0.0, 60.0} and (throughout.visible[0] == 0).sum() == 5
    each = CONDITIONS["a third hidden in each frame"].judged(clips(), 0)[0]
    assert ((each.visible == 0).sum(1) == 5).all() and (each.visible.sum(0) > 0).all()


def test_a_slower_camera_shows_the_same_motion_at_its_own_moments() -> None:
    (whole, _), (slow, _), (few, _) = clips(), sampled(clips(), 0, fps=10), sampled(clips(), 0, frames=15)
    assert slow.fps == 10 and 18 <= len(slow.joints) <= 20
    assert len(few.joints) == 15 and few.seconds == pytest.approx(whole.seconds)
    np.testing.assert_allclose(few.joints[[0, -1]], whole.joints[[0, -1]], atol=1e-6)
    nearest = np.abs(whole.joints[None] - slow.joints[:, None]).max((2, 3)).min(1)
    assert nearest.max() < 0.02  # between two frames of the whole


def test_jitter_has_the_size_that_it_says() -> None:
    moved = jitter(clips(), 0)[0].joints - clips()[0].joints
    assert moved.std() == pytest.approx(0.03, rel=0.05)


def test_other_bodies_keep_directions_and_change_each_bone_by_one_factor() -> None:
    a, b = clips()[0].joints, other_bodies(clips(), 0)[0].joints
    factor = bones(b) / bones(a)
    np.testing.assert_allclose(factor, np.broadcast_to(factor[:1], factor.shape), rtol=1e-3)
    assert factor[0].std() > 0.05 and 0.3 < np.median(factor[0]) < 1.2


def test_a_tilt_is_a_rotation_that_leaves_up_nearly_up() -> None:
    a, b = clips()[0].joints, tilted(clips(), 0)[0].joints
    np.testing.assert_allclose(bones(b), bones(a), rtol=1e-4)
    turn, *_ = np.linalg.lstsq(a.reshape(-1, 3), b.reshape(-1, 3), rcond=None)
    assert turn[1, 1] > np.cos(np.deg2rad(15)) ** 2 - 1e-3
    assert abs(turn[1, 1]) < 1 - 1e-4
