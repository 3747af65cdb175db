"""Augmentation: each part does what its name says, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.skeleton import CORE15, PARENTS
from tests.trainer.made import windows
from trainer.augment import AugmentConfig, augment, hidden_stretches, mirror, rotation, stretch_bones

JOINTS, VISIBLE = windows("walk", "wave", "fall", frames=30)
NOTHING = AugmentConfig(mirror=0, tilt=0, bone=0, noise=0, offset=0, hide_joints=0, hide_limb=0, hide_frames=0)
some = settings(derandomize=True, deadline=None, max_examples=30)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lengths(joints: torch.Tensor) -> torch.Tensor:
    """(N, T, 14)"""
    return torch.stack([(joints[:, :, j] - joints[:, :, PARENTS[j]]).norm(dim=-1) for j in range(1, 15)], -1)


def test_mirror_exchanges_the_sides_and_is_its_own_inverse() -> None:
    visible = VISIBLE.clone()
    left, right = CORE15.index("l_wrist"), CORE15.index("r_wrist")
    visible[0, 3, left] = 0
    joints, seen = mirror(JOINTS, visible)
    for name in CORE15:
        other = {"l": "r", "r": "l"}.get(name[0], name[0]) + name[1:] if name[1] == "_" else name
        expected = JOINTS[:, :, CORE15.index(name)] * torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(joints[:, :, CORE15.index(other)], expected, atol=0, rtol=0)
    assert seen[0, 3, right] == 0 and seen[0, 3, left] == 1
    back, seen_back = mirror(joints, seen)
    assert torch.equal(back, JOINTS) and torch.equal(seen_back, visible)


@pytest.mark.parametrize("bone", range(14))
def test_stretching_changes_exactly_that_bone(bone: int) -> None:
    factor = torch.ones(3, 14)
    factor[1, bone] = 1.3
    out = stretch_bones(JOINTS, factor)
    expected = lengths(JOINTS)
    expected[1, :, bone] *= 1.3
    torch.testing.assert_close(lengths(out), expected, atol=1e-5, rtol=0)
    for j in range(1, 15):
        before, after = (torch.nn.functional.normalize(x[:, :, j] - x[:, :, PARENTS[j]], dim=-1) for x in (JOINTS, out))
        torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
    assert torch.equal(out[:, :, 0], JOINTS[:, :, 0])
    torch.testing.assert_close(out[0], JOINTS[0], atol=1e-6, rtol=0)


@some
@given(st.lists(st.tuples(*[st.floats(-3.1, 3.1)] * 3), min_size=1, max_size=4))
def test_rotations_are_rotations(angles: list[tuple[float, float, float]]) -> None:
    r = rotation(*torch.tensor(angles).T)
    torch.testing.assert_close(r @ r.transpose(1, 2), torch.eye(3).repeat(len(r), 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(len(r)), atol=1e-5, rtol=0)


def test_yaw_keeps_up_and_tilt_is_about_the_horizontal_axes() -> None:
    zero, quarter = torch.zeros(1), torch.full((1,), torch.pi / 2)
    up, side, ahead = torch.eye(3)[1], torch.eye(3)[0], torch.eye(3)[2]
    for angles, kept, moved in (
        ((quarter, zero, zero), up, side),
        ((zero, quarter, zero), side, up),
        ((zero, zero, quarter), ahead, up),
    ):
        r = rotation(*angles)[0]
        torch.testing.assert_close(kept @ r, kept, atol=1e-6, rtol=0)
        assert abs(float((moved @ r) @ moved)) < 1e-6


@some
@given(st.integers(0, 10_000), st.integers(8, 60))
def test_spells_are_one_stretch_each_of_at_most_half_the_window(seed: int, frames: int) -> None:
    g = seeded(seed)
    start, length = torch.rand(2, 15, generator=g), torch.rand(2, 15, generator=g)
    hidden = hidden_stretches(start, length, frames)
    assert hidden.shape == (2, frames, 15) and hidden.dtype == torch.bool
    edges = torch.diff(torch.nn.functional.pad(hidden.int(), (0, 0, 1, 1)), dim=1)
    assert (edges.eq(1).sum(1) <= 1).all()
    assert (hidden.sum(1) <= frames / 2 + 1).all()
    # Unless the window's end cuts it off, a stretch has the given length, to the frame.
    inside = start * frames + length * frames / 2 < frames - 1
    assert ((hidden.sum(1) - length * frames / 2).abs()[inside] <= 1).all()


def test_the_generator_decides_everything_and_the_input_stays() -> None:
    joints, visible = JOINTS.clone(), VISIBLE.clone()
    one, same, other = (augment(joints, visible, AugmentConfig(), seeded(s)) for s in (5, 5, 6))
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(joints, JOINTS) and torch.equal(visible, VISIBLE)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    augment(joints, visible, AugmentConfig(), seeded(5))
    assert torch.equal(before, torch.get_rng_state())  # the global generator is left alone


@some
@given(st.integers(0, 10_000))
def test_what_is_hidden_is_zero_and_nothing_hidden_comes_back(seed: int) -> None:
    config = AugmentConfig(hide_joints=1, hide_limb=1, hide_frames=1, flat=0.5, mirror=0)
    visible = VISIBLE.clone()
    visible[:, ::3, 4] = 0
    joints, seen = augment(JOINTS.repeat(8, 1, 1, 1), visible.repeat(8, 1, 1), config, seeded(seed))
    assert joints.isfinite().all() and joints[seen == 0].eq(0).all()
    assert ((seen == 0) | (seen == 1)).all() and seen[:, ::3, 4].eq(0).all()
    # Every sample loses at least one whole limb (or the head) for the whole window.
    assert (seen.sum(1) == 0).any(1).all()
    assert (seen.sum((1, 2)) > 0).all()


def test_some_rows_change_as_within_the_whole_batch() -> None:
    joints, visible = windows("walk", "wave", "jog", "clap", "squat", "lift_box")
    config = AugmentConfig(flat=0.5)
    for seed in range(4):
        whole = augment(joints, visible, config, seeded(seed))
        for rows in (slice(0, 3), slice(3, 6), slice(4, 5)):
            part = augment(joints[rows], visible[rows], config, seeded(seed), (rows, 6))
            torch.testing.assert_close(part[0], whole[0][rows])
            assert torch.equal(part[1], whole[1][rows])


def test_without_any_change_asked_for_only_view_and_size_change() -> None:
    joints, visible = augment(JOINTS, VISIBLE, NOTHING, seeded(1))
    assert torch.equal(visible, VISIBLE)
    ratio = lengths(joints) / lengths(JOINTS)
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-4, rtol=0)
    assert ratio[:, 0, 0].unique().numel() == 3
    torch.testing.assert_close(joints[..., 1], JOINTS[..., 1] * ratio[:, :1, :1], atol=1e-4, rtol=0)
    assert (joints[..., 0] - JOINTS[..., 0]).abs().amax() > 0.1  # turned


@pytest.mark.parametrize(
    "part", ["tilt", "bone", "noise", "offset", "hide_joints", "hide_limb", "hide_frames", "flat", "mirror"]
)
def test_every_setting_has_an_effect(part: str) -> None:
    joints, visible = JOINTS.repeat(20, 1, 1, 1), VISIBLE.repeat(20, 1, 1)
    without = augment(joints, visible, NOTHING, seeded(2))
    with_it = augment(
        joints, visible, replace(NOTHING, **{part: 0.05 if part in ("noise", "offset") else 1.0}), seeded(2)
    )
    hides = part.startswith("hide")
    assert torch.equal(with_it[1], without[1]) is not hides
    if not hides:
        assert (with_it[0] - without[0]).abs().amax() > 0.01
    if part == "flat":
        assert with_it[0][..., 2].eq(0).all() and without[0][..., 2].abs().amax() > 0.1


def test_a_flat_share_is_that_share() -> None:
    config = replace(NOTHING, flat=0.25)
    joints, _ = augment(JOINTS[:1].expand(800, -1, -1, -1), VISIBLE[:1].expand(800, -1, -1), config, seeded(3))
    assert 0.20 < float(joints[..., 2].eq(0).all((1, 2)).float().mean()) < 0.30
