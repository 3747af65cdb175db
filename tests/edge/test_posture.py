"""Axes that point the wrong way are told of, and people who do odd things the right way round are not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.axes_cli import parse_axes
from edge.clip import Clip
from edge.grid import WindowSpec
from edge.motion import MOTIONS, make_motion
from edge.notices import Notices
from edge.posture import LEGS, MOST, Posture, clip_cues, cues, wrong
from edge.skeleton import CORE15, MIRROR, Float, lift
from edge.windows import Windows

DOWN, KNEES = "heads are below hips", "knees bend backwards"
AXES = {
    "as it should be": ([1, 1, 1], [0, 1, 2], ""),
    "y down": ([1, -1, 1], [0, 1, 2], DOWN),
    "on its head": ([1, -1, -1], [0, 1, 2], DOWN),
    "z turned over": ([1, 1, -1], [0, 1, 2], KNEES),
    "x turned over": ([-1, 1, 1], [0, 1, 2], KNEES),
    "z up": ([1, -1, 1], [0, 2, 1], "lie along z"),
    "z down": ([1, 1, -1], [0, 2, 1], "lie along z"),
    "x up": ([1, -1, 1], [1, 0, 2], "lie along x"),
    "x down": ([-1, 1, 1], [1, 0, 2], "lie along x"),
    "turned about y": ([-1, 1, -1], [0, 1, 2], ""),
    "x and z exchanged and one turned over": ([1, 1, -1], [2, 1, 0], ""),
}


def total(*clips: Clip) -> Float:
    out: Float = np.sum([clip_cues(c) for c in clips], axis=(0, 1))
    return out


def everyday() -> list[Clip]:
    return [make_motion(m, seconds=4, seed=s) for s, m in enumerate(("walk", "sit_down", "wave", "pick_up"))]


def turned(clip: Clip, sign: list[int], order: list[int]) -> Clip:
    return replace(clip, joints=(clip.joints[..., order] * np.array(sign, np.float32)))


@pytest.mark.parametrize(("sign", "order", "found"), AXES.values(), ids=AXES)
def test_which_axis_is_wrong(sign: list[int], order: list[int], found: str) -> None:
    clips = [turned(c, sign, order) for c in everyday()]
    why = wrong(total(*clips))
    assert found in why and bool(why) == bool(found)
    for _ in range(2):  # where an axis is turned over as well, the knees are told of once the head is up
        if why := wrong(total(*clips)):
            columns, signs = parse_axes(why.removesuffix(" would be right").split()[-1])
            clips = [turned(c, signs, columns) for c in clips]
    assert wrong(total(*clips)) == "", "the advice is right"


def test_left_and_right_exchanged() -> None:
    swapped = [replace(c, joints=c.joints[:, MIRROR], visible=c.visible[:, MIRROR]) for c in everyday()]
    assert KNEES in wrong(total(*swapped))
    mirrored = [replace(c, joints=c.joints * np.array([-1, 1, 1], np.float32)) for c in swapped]
    assert wrong(total(*mirrored)) == "", "a mirror image with the names exchanged is a body again"


@pytest.mark.parametrize("motion", sorted(set(MOTIONS) - {"fall"}))
def test_no_motion_is_taken_for_a_mistake(motion: str) -> None:
    assert wrong(total(*(make_motion(motion, seconds=4, seed=s) for s in range(3)))) == ""


def test_pictures_have_no_knees_but_a_right_way_up() -> None:
    def seen(clip: Clip, y: int) -> Clip:
        pixels = 500 + clip.joints[..., :2] * np.array([200, -200 * y], np.float32)
        return replace(clip, joints=lift(pixels))

    assert wrong(total(*(seen(c, 1) for c in everyday()))) == ""
    assert DOWN in wrong(total(*(seen(c, -1) for c in everyday())))
    assert total(*(seen(c, 1) for c in everyday()))[5] == 0


@given(st.floats(0, 2 * np.pi), st.floats(0.2, 5), st.integers(0, 14))
def test_place_heading_and_size_are_no_matter(angle: float, size: float, hidden: int) -> None:
    clip = make_motion("squat", seconds=3)
    about_y = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    moved = replace(clip, joints=(clip.joints @ about_y.T * size + (3, 1, -8)).astype(np.float32))
    plain, other = total(clip), total(moved)
    np.testing.assert_allclose(other[[1, 3, 4, 5]], plain[[1, 3, 4, 5]], rtol=2e-3, atol=2e-3)
    visible = clip.visible.copy()
    visible[:, hidden] = 0
    assert (total(replace(clip, visible=visible))[3] == 0) == (
        CORE15[hidden] in ("pelvis", "neck", "l_shoulder", "r_shoulder", "l_hip", "r_hip")
    )


def test_cues_of_a_pose_by_hand() -> None:
    """Facing −z with the left at −x, sitting: the knees half a metre ahead."""
    pose = np.zeros((15, 3), np.float32)
    places = {"pelvis": (0, 1, 0), "neck": (0, 1.5, 0), "l_shoulder": (-0.2, 1.5, 0), "r_shoulder": (0.2, 1.5, 0)}
    for side, x in (("l", -0.1), ("r", 0.1)):
        places |= {f"{side}_hip": (x, 1, 0), f"{side}_knee": (x, 1, -0.5), f"{side}_ankle": (x, 0.5, -0.5)}
    for name, place in places.items():
        pose[CORE15.index(name)] = place
    # Each knee is √½ of the upper leg's length beside the line from hip to ankle, and half of it ahead.
    expected = [0, 1, 0, 1, 2 * 0.5, 2 * 0.5**0.5]
    np.testing.assert_allclose(cues(pose[None], np.ones((1, 15), np.float32))[0], expected, atol=1e-6)
    assert not cues(np.zeros((2, 15, 3), np.float32), np.ones((2, 15), np.float32)).any(), "no body, no cue"
    assert not cues(pose[None], np.zeros((1, 15), np.float32))[:, 3:].any()


def test_little_is_not_enough() -> None:
    upside = turned(make_motion("sit_down", seconds=6), [1, -1, 1], [0, 1, 2])
    assert wrong(total(upside) * (1.9 / total(upside)[3])) == ""
    backwards = total(turned(make_motion("jog", seconds=6), [1, 1, -1], [0, 1, 2]))
    assert KNEES in wrong(backwards)
    assert wrong(backwards * (0.99 * LEGS / backwards[5])) == ""


class Watched:
    """An arena of a few streams, looked at once a second."""

    def __init__(self) -> None:
        self.windows = Windows(WindowSpec.of(48, 2.0, 0.5, 0.5, 5.0), 16, 8)
        self.out, self.now = io.StringIO(), 0.0
        self.posture = Posture(Notices(self.out, every=0))

    def second(self, **poses: Clip) -> None:
        """One more second, of which each stream sends its clip's next frame."""
        self.now += 1
        for name, clip in poses.items():
            stream = self.windows.stream_named(name)
            assert stream is not None
            stream.heard = self.now
            n = int(7 * self.now) % len(clip.joints)
            slots = self.windows.slots_of(stream, [1, 2])
            t = np.full(2, int(self.now * 1e9))
            for _ in self.windows.push(slots, t, np.stack([clip.joints[n]] * 2), np.stack([clip.visible[n]] * 2)):
                pass
        self.posture.look(self.windows, self.now)


def test_a_stream_is_told_of_after_some_seconds_and_the_others_are_not() -> None:
    right = make_motion("sit_down", seconds=6)
    over, behind = turned(right, [1, -1, -1], [0, 1, 2]), turned(right, [1, 1, -1], [0, 1, 2])
    watched = Watched()
    for _ in range(9):
        watched.second(good=right, over=over, behind=behind)
    assert watched.out.getvalue() == ""
    for _ in range(3):
        watched.second(good=right, over=over, behind=behind)
    lines = watched.out.getvalue()
    assert f"stream over: {DOWN}" in lines and f"stream behind: {KNEES}" in lines and "good" not in lines


def test_a_stream_that_is_silent_or_gone_is_not_looked_at_again() -> None:
    over, right = (turned(make_motion("walk", seconds=6), [1, y, 1], [0, 1, 2]) for y in (-1, 1))
    watched = Watched()
    for _ in range(8):
        watched.second(cam=over)
    for _ in range(30):
        watched.second(other=right)
    assert watched.out.getvalue() == ""
    watched.windows.drop_stream(watched.windows.streams["cam"])
    watched.second(other=right)
    for _ in range(9):
        watched.second(cam=over)
    assert watched.out.getvalue() == "", "a stream of that name begins anew"
    watched.second(cam=over)
    assert "stream cam" in watched.out.getvalue()


def test_what_was_mended_is_not_held_against_it() -> None:
    over, right = (turned(make_motion("walk", seconds=6), [1, y, 1], [0, 1, 2]) for y in (-1, 1))
    watched = Watched()
    for _ in range(int(MOST)):
        watched.second(cam=over)
    for _ in range(int(MOST)):
        watched.second(cam=right)
    said = watched.out.getvalue()
    assert said
    watched.second(cam=right)
    assert watched.out.getvalue() == said
