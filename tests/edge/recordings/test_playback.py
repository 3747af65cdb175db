"""Playback: who is seen when, at which times, and that one person's clips join without a jump."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clip import Clip, save_clip
from edge.errors import ClipError
from edge.motion import make_motion
from edge.recordings.playback import APART_M, BLEND_S, LEAST_S, CameraFrame, Person, capture_ns, find_clips, paced, play


def still(seconds: float, fps: float = 20, at: tuple[float, float, float] = (0, 0, 0)) -> Clip:
    frames = round(seconds * fps) + 1
    joints = np.tile(np.linspace(0, 1, 45).reshape(15, 3) + np.array(at), (frames, 1, 1)).astype(np.float32)
    return Clip(joints, np.ones((frames, 15), np.float32), fps)


def moved(clip: Clip, x: float, z: float) -> Clip:
    return replace(clip, joints=clip.joints + np.array([x, 0, z], np.float32))


def files(folder: Path, *clips: Clip) -> list[Path]:
    paths = [folder / f"{i}.npz" for i in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        save_clip(path, clip)
    return paths


def motionless(frames: int, fps: float) -> Clip:
    """Somebody who does not move."""
    pose = np.eye(15, 3, dtype=np.float32)
    return Clip(np.tile(pose, (frames, 1, 1)), np.ones((frames, 15), np.float32), fps)


def tracks(shots: list[CameraFrame]) -> dict[int, tuple[float, float, int]]:
    """Track id → its first and last time, and in how many frames it is."""
    out: dict[int, tuple[float, float, int]] = {}
    for shot in shots:
        for i in shot.ids:
            first, _, n = out.get(i, (shot.t, 0, 0))
            out[i] = (first, shot.t, n + 1)
    return out


def ground(joints: np.ndarray) -> np.ndarray:
    """The body's centre over the ground, (…, 2)."""
    return joints.astype(float).mean(-2)[..., [0, 2]]


def test_frames_are_stamped_at_the_asked_rate_and_loop_to_four_seconds(tmp_path: Path) -> None:
    paths = files(tmp_path, still(1.0, fps=20))
    for fps, rate in ((None, 20), (10.0, 10), (25.0, 25)):
        shots = list(play(paths, fps=fps))
        assert LEAST_S == 4 and len(shots) == 4 * rate
        np.testing.assert_allclose([s.t for s in shots], np.arange(4 * rate) / rate, atol=1e-9)
        assert all(s.ids == [0] and s.joints.shape == (1, 15, 3) and s.visible.shape == (1, 15) for s in shots)


def test_a_longer_clip_is_played_once_and_seconds_say_otherwise(tmp_path: Path) -> None:
    paths = files(tmp_path, still(6.0, fps=10))
    assert len(list(play(paths, fps=None))) == 60
    assert len(list(play(paths, fps=None, seconds=2.5))) == 25
    assert len(list(play(paths, fps=None, seconds=9.0))) == 90


def test_a_played_clip_is_the_clip(tmp_path: Path) -> None:
    clip = make_motion("wave", seconds=5, fps=15, seed=1)
    shots = list(play(files(tmp_path, clip), fps=None))
    np.testing.assert_allclose(np.stack([s.joints[0] for s in shots]), clip.joints[:-1], atol=1e-5)
    between = list(play(files(tmp_path, clip), fps=30))
    np.testing.assert_allclose(between[7].joints[0], (clip.joints[3] + clip.joints[4]) / 2, atol=1e-5)


def test_each_clip_is_a_new_track_after_the_one_before(tmp_path: Path) -> None:
    shots = list(play(files(tmp_path, still(4), still(5), still(1)), fps=10))
    assert tracks(shots) == {
        0: (0.0, pytest.approx(3.9), 40),
        1: (pytest.approx(4.0), pytest.approx(8.9), 50),
        2: (pytest.approx(9.0), pytest.approx(12.9), 40),
    }
    assert all(len(s.ids) == 1 for s in shots)


def test_people_share_the_clips_in_turns_and_stand_apart(tmp_path: Path) -> None:
    shots = list(play(files(tmp_path, *[still(4)] * 5), fps=10, people=2))
    seen = tracks(shots)
    assert {i: round(first) for i, (first, _, _) in seen.items()} == {0: 0, 1: 0, 2: 4, 3: 4, 4: 8}
    assert all(n == 40 for _, _, n in seen.values())
    both = shots[0]
    assert both.ids == [0, 1]
    np.testing.assert_allclose(both.joints[1] - both.joints[0], np.tile([APART_M, 0, 0], (15, 1)), atol=1e-5)
    assert shots[-1].ids == [4] and shots[-1].joints.shape == (1, 15, 3)


def test_as_one_each_person_plays_all_clips_beginning_with_their_own(tmp_path: Path) -> None:
    clips = [still(4, at=(0, h, 0)) for h in (0, 10, 20)]
    shots = list(play(files(tmp_path, *clips), fps=10, people=2, as_one=True))
    assert len(shots) == 120 and all(s.ids == [0, 1] for s in shots)
    height = [[round(float(s.joints[p, 0, 1] - clips[0].joints[0, 0, 1])) for s in shots[20::40]] for p in (0, 1)]
    assert height == [[0, 10, 20], [10, 20, 0]]
    apart = np.array([ground(s.joints[1]) - ground(s.joints[0]) for s in shots])
    np.testing.assert_allclose(apart, np.tile([APART_M, 0], (120, 1)), atol=1e-4)


def test_as_one_more_people_than_clips_begin_over(tmp_path: Path) -> None:
    shots = list(play(files(tmp_path, still(4), still(4)), fps=5, people=3, as_one=True))
    assert all(s.ids == [0, 1, 2] for s in shots) and len(shots) == 40


def test_as_one_nobody_jumps_where_clips_meet(tmp_path: Path) -> None:
    """Clips recorded metres apart: the body goes on from where it is, no faster than in the clips themselves."""
    fps = 60
    clips = [
        moved(make_motion("walk", seconds=5, fps=30, seed=1), 3, -2),
        moved(make_motion("stand", seconds=2, fps=30, seed=2), -4, 5),
        moved(make_motion("walk", seconds=4.5, fps=30, seed=3), 0, 9),
        make_motion("squat", seconds=6, fps=30, seed=4),
    ]
    shots = list(play(files(tmp_path, *clips), fps=fps, people=2, as_one=True))
    joints = np.stack([s.joints for s in shots])
    assert len(joints) == round((5 + 4 + 4.5 + 6) * fps)
    assert np.linalg.norm(np.diff(ground(joints), axis=0), axis=-1).max() < 0.05  # 3 m/s
    assert np.linalg.norm(np.diff(joints.astype(float), axis=0), axis=-1).max() < 0.25
    at = 5 * fps  # the first person's second clip is blended in, over BLEND_S
    np.testing.assert_allclose(joints[at, 0], joints[at - 1, 0], atol=0.05)
    walked = ground(joints[at, 0]) - ground(joints[0, 0])
    meant = ground(clips[0].joints[-1]) - ground(clips[0].joints[0])
    np.testing.assert_allclose(walked, meant, atol=1e-3)


def test_after_the_blend_the_next_clip_is_played_as_it_is() -> None:
    first, second = still(4, at=(1, 0, 0)), make_motion("wave", seconds=5, fps=20, seed=0)
    person = Person([first, second], None)
    assert person.seconds == 9
    pose = [person.at(4 + BLEND_S + dt)[0].astype(float) for dt in (0.0, 1.0, 2.0)]
    own = [second.at(np.array([BLEND_S + dt]))[0][0].astype(float) for dt in (0.0, 1.0, 2.0)]
    shift = pose[0] - own[0]
    assert np.ptp(shift, axis=0).max() < 1e-5 and np.abs(shift[:, 1]).max() < 1e-6  # moved over the ground only
    for a, b in zip(pose, own, strict=True):
        np.testing.assert_allclose(a - b, shift, atol=1e-5)
    middle = person.at(4 + BLEND_S / 2)[0]
    half = (person._pose(0, 4 + BLEND_S / 2)[0] + person._pose(1, 4 + BLEND_S / 2)[0])[0] / 2
    np.testing.assert_allclose(middle, half, atol=1e-5)


def test_a_joint_hidden_in_both_clips_stays_hidden() -> None:
    clip = still(4)
    clip.joints[:, 4], clip.visible[:, 4] = 0, 0
    person = Person([clip, clip], None)
    visible = np.stack([person.at(t)[1] for t in np.arange(0, 8, 0.05)])
    assert (visible[:, 4] == 0).all() and (np.delete(visible, 4, 1) > 0.99).all()


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 150), st.sampled_from([12.0, 15.0, 29.97, 30.0, 60.0])), min_size=2, max_size=5),
    st.sampled_from([None, 7.0, 25.0, 29.97, 30.0, 60.0]),
    st.integers(1, 3),
)
def test_any_lengths_and_rates_play_to_the_end(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, float]], fps: float | None, people: int
) -> None:
    """Where a clip ends between two floating-point numbers, too."""
    clips = [motionless(n, rate) for n, rate in shapes]
    rate, times = fps or float(np.float32(clips[0].fps)), {}
    for n, shot in enumerate(play(files(tmp_path_factory.mktemp("c"), *clips), fps=fps, people=people)):
        assert shot.t == pytest.approx(n / rate)
        for i in shot.ids:
            times.setdefault(i, []).append(shot.t)
    assert sorted(times) == list(range(len(clips)))
    for k, stamps in times.items():
        assert len(stamps) == pytest.approx(max(clips[k].seconds, LEAST_S) * rate, abs=1.01)


def test_a_clip_that_ends_just_after_a_frames_time_does_not_stop_the_show(tmp_path: Path) -> None:
    """fps 60: 3 × 6.6333… s end an ulp after frame 1194's time."""
    paths = files(tmp_path, *[motionless(399, 60.0)] * 4)
    ends = np.cumsum([398 / 60] * 3)
    assert any(round(e * 60) * (1 / 60) < e for e in ends)
    assert len(list(play(paths, fps=60))) == 4 * 398


def test_shots_come_when_their_time_has_come() -> None:
    shots = [
        CameraFrame(t, [], np.zeros((0, 15, 3), np.float32), np.zeros((0, 15), np.float32)) for t in (0, 0.5, 0.6, 2)
    ]
    for speed, waits in ((1.0, [0.5, 0.1, 1.4]), (2.0, [0.25, 0.05, 0.7]), (0.0, [])):
        now, slept = [50.0], []

        def sleep(s: float, now: list[float] = now, slept: list[float] = slept) -> None:
            slept.append(s)
            now[0] += s

        assert list(paced(iter(shots), speed, clock=lambda now=now: now[0], sleep=sleep)) == shots
        assert slept == pytest.approx(waits)


def test_a_late_consumer_is_not_made_to_wait_again() -> None:
    shots = [CameraFrame(t, [], np.zeros((0, 15, 3), np.float32), np.zeros((0, 15), np.float32)) for t in (0, 1, 2)]
    now, slept = [0.0], []
    for shot in paced(iter(shots), 1.0, clock=lambda: now[0], sleep=slept.append):
        now[0] = {0: 1.7, 1: 1.7, 2: 2.0}[int(shot.t)]
    assert slept == pytest.approx([0.3])  # 1.7 is after 1 and before 2


def test_capture_times_are_nanoseconds_from_the_start() -> None:
    shot = CameraFrame(1 / 3, [], np.zeros((0, 15, 3), np.float32), np.zeros((0, 15), np.float32))
    assert capture_ns(1_700_000_000_000_000_000, shot) == 1_700_000_000_333_333_333


def test_clips_are_found_in_files_and_folders_in_natural_order(tmp_path: Path) -> None:
    for name in ("b/10.npz", "b/9.npz", "b/deep/1.npz", "b/x.txt", "a.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_clips([tmp_path / "b", tmp_path / "a.npz"])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["b/9.npz", "b/10.npz", "b/deep/1.npz", "a.npz"]


def test_a_folder_without_clips_and_an_absent_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"no \.npz clip found") as e:
        find_clips([tmp_path])
    assert str(tmp_path) in str(e.value)
    with pytest.raises(ClipError, match=r"absent\.npz"):
        play(find_clips([tmp_path / "absent.npz"]), fps=None)  # at once, not with the first frame
