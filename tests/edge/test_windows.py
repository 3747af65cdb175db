"""The arena against a slow reference that interpolates each coordinate over the whole track."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.grid import SECOND, WindowSpec, phase_of
from edge.skeleton import Float
from edge.windows import Windows, _previous

T, ROWS = 48, 48 / 2.0


def spec(stride: float = 0.25, max_gap: float = 0.5, timeout: float = 2.0) -> WindowSpec:
    return WindowSpec.of(T, 2.0, stride, max_gap, timeout)


def pose(t: float, track: int = 0) -> Float:
    """A smooth motion: every coordinate its own sine of time."""
    k = np.arange(45).reshape(15, 3) + 7 * track
    return np.sin(t * (1 + k / 30) + k).astype(np.float32)


class Recorder:
    """Feeds one stream and keeps every window that came due, by track."""

    def __init__(self, spec: WindowSpec, tracks: int = 8, streams: int = 4) -> None:
        self.windows = Windows(spec, tracks, streams)
        self.found: dict[int, list[tuple[int, Float, Float]]] = {}

    def push(self, t: float, people: dict[int, Float], visible: Float | None = None, stream: str = "cam") -> None:
        s = self.windows.stream_named(stream)
        assert s is not None
        if self.windows.advance(s, round(t * SECOND)):
            self.windows.release(self.windows.gone(s))
        joints = np.stack(list(people.values()))
        seen = np.ones(joints.shape[:2], np.float32) if visible is None else visible
        mine = self.windows.slots_of(s, list(people))
        self.take(mine, np.full(len(mine), round(t * SECOND)), joints, seen)

    def take(self, mine: np.ndarray, t: np.ndarray, joints: Float, seen: Float) -> None:
        """Push, with slots at hand."""
        for slots, ends in self.windows.push(mine, t, joints, seen):
            assert len(set(slots.tolist())) == len(slots)
            j, v = np.empty((len(slots), T, 15, 3), np.float32), np.empty((len(slots), T, 15), np.float32)
            self.windows.gather(slots, j, v)
            for i, slot in enumerate(slots):
                self.found.setdefault(int(self.windows.track[slot]), []).append((int(ends[i]), j[i], v[i]))


def reference(times: np.ndarray, values: np.ndarray, stride_rows: int, phase: int) -> list[tuple[float, np.ndarray]]:
    """Windows of values (N, 15, 3) sampled at `times`, on the grid that starts at the first of them."""
    grid = times[0] + np.arange(int((times[-1] - times[0]) * ROWS + 1e-6) + 1) / ROWS
    flat = values.reshape(len(values), -1)
    rows = np.stack([np.interp(grid, times, c) for c in flat.T], 1).reshape(-1, 15, 3)
    due = sorted({T, *range(T + phase, len(rows) + 1, stride_rows)})
    return [(grid[e - 1], rows[e - T : e]) for e in due if e <= len(rows)]


@given(
    fps=st.sampled_from([12.0, 15.0, 24.0, 30.0, 59.94, 120.0]),
    jitter=st.floats(0, 0.3),
    start=st.floats(0, 1e6),
    seed=st.integers(0, 100),
    stride=st.sampled_from([0.125, 0.25, 1.0]),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_windows_are_the_track_interpolated_onto_its_grid(
    fps: float, jitter: float, start: float, seed: int, stride: float
) -> None:
    rng = np.random.default_rng(seed)
    times = start + (np.arange(int(3.2 * fps)) + rng.uniform(0, jitter, int(3.2 * fps))) / fps
    times = np.round(times * SECOND) / SECOND
    r = Recorder(spec(stride))
    for t in times:
        r.push(t, {5: pose(t - start, 5)})
    rows = round(stride * ROWS)
    expected = reference(times - start, np.stack([pose(t - start, 5) for t in times]), rows, phase_of("cam", 5, rows))
    found = r.found.get(5, [])
    # The last row may fall either side of the last frame by a rounding of the clock.
    assert len(expected) - 1 <= len(found) <= len(expected) + 1
    for (end, joints, visible), (when, rows) in zip(found, expected, strict=False):
        assert end / SECOND == pytest.approx(start + when, abs=1e-5)
        np.testing.assert_allclose(joints, rows, atol=2e-3 if start > 1e4 else 1e-4)
        np.testing.assert_allclose(visible, 1, atol=1e-6)


def test_the_first_window_comes_when_t_rows_are_there_and_then_every_stride() -> None:
    r = Recorder(spec(0.25))
    for k in range(91):
        r.push(k / 30, {1: pose(k / 30)})
    ends = [end / SECOND for end, *_ in r.found[1]]
    assert ends[0] == pytest.approx(47 / 24, abs=1e-6) and 0 < ends[1] - ends[0] <= 0.25 + 1e-6
    np.testing.assert_allclose(np.diff(ends[1:]), 0.25, atol=1e-6)
    assert len(ends) >= 5


def test_people_of_one_message_do_not_mix_and_tracks_have_grids_of_their_own() -> None:
    r = Recorder(spec())
    for k in range(100):
        t = k / 30
        people = {1: pose(t, 1)} if k < 7 else {2: pose(t, 2), 1: pose(t, 1)}
        r.push(t, people)
    for track, first in ((1, 0.0), (2, 7 / 30)):
        end, joints, _ = r.found[track][0]
        assert end / SECOND == pytest.approx(first + 47 / 24, abs=1e-6)
        np.testing.assert_allclose(joints[0], pose(first, track), atol=1e-6)
        grid = first + np.arange(T) / ROWS
        np.testing.assert_allclose(joints, np.stack([pose(t, track) for t in grid]), atol=5e-3)


def test_a_short_gap_is_filled_and_a_long_one_begins_anew() -> None:
    r = Recorder(spec(max_gap=0.5))
    times = [k / 30 for k in range(30)] + [30 / 30 + 0.4 + k / 30 for k in range(40)]
    for t in times:
        r.push(t, {1: pose(t)})
    assert r.windows.fate["gaps"] == 0
    expected = reference(np.array(times), np.stack([pose(t) for t in times]), 6, 0)
    np.testing.assert_allclose(r.found[1][0][1], expected[0][1], atol=1e-5)

    r = Recorder(spec(max_gap=0.5))
    for t in [k / 30 for k in range(50)] + [50 / 30 + 0.6 + k / 30 for k in range(58)]:
        r.push(t, {1: pose(t)})
    assert r.windows.fate["gaps"] == 1
    assert 1 not in r.found, "neither side of the gap has a whole window"


def test_a_gap_longer_than_the_stride_yields_every_window_it_passed() -> None:
    r = Recorder(spec(stride=0.125, max_gap=1.0))
    for t in [*(k / 30 for k in range(60)), 60 / 30 + 0.5]:
        r.push(t, {1: pose(t)})
    ends = np.array([end for end, *_ in r.found[1]]) / SECOND
    np.testing.assert_allclose(np.diff(ends[1:]), 0.125, atol=1e-6)
    assert len(ends) >= 5


@pytest.mark.parametrize(
    ("t", "fate"), [(1.0, "repeated"), (0.9, "late"), (1.0 - 0.6, "clock_jumps"), (1.0 + 0.6, "gaps"), (1.03, None)]
)
def test_the_fate_of_a_frame_by_its_time(t: float, fate: str | None) -> None:
    r = Recorder(spec(max_gap=0.5))
    r.push(0.97, {1: pose(0.97)})
    r.push(1.0, {1: pose(1.0)})
    r.push(t, {1: pose(t)})
    counted = {k: n for k, n in r.windows.fate.items() if n}
    assert counted == ({fate: 1} if fate else {})


def test_late_frames_do_not_turn_the_clock_back_bit_by_bit() -> None:
    r = Recorder(spec(max_gap=0.5))
    for t in (1.0, 0.7, 0.4):
        r.push(t, {1: pose(t)})
    assert (r.windows.fate["late"], r.windows.fate["clock_jumps"]) == (1, 1), "0.4 is 0.6 before the newest"


def test_who_was_seen_at_about_the_time_that_a_clock_is_set_to_is_late_and_keeps_its_window() -> None:
    r = Recorder(spec(max_gap=0.5))
    r.push(10.0, {1: pose(0), 2: pose(0)})
    r.push(10.4, {2: pose(0)})
    r.push(9.8, {1: pose(0), 2: pose(0)})
    assert (r.windows.fate["late"], r.windows.fate["clock_jumps"]) == (1, 1)


def test_a_first_frame_and_the_next_after_just_the_longest_gap_may_come_together() -> None:
    r = Recorder(spec(max_gap=0.5))
    stream = r.windows.stream_named("cam")
    assert stream is not None
    slots = np.repeat(r.windows.slots_of(stream, [1]), 2)
    r.take(slots, np.array([0, SECOND // 2]), np.zeros((2, 15, 3), np.float32), np.ones((2, 15), np.float32))
    assert r.windows.rows[slots[0]] == 13 and not any(r.windows.fate.values())


def test_a_late_frame_changes_nothing() -> None:
    a, b = Recorder(spec()), Recorder(spec())
    for k in range(80):
        a.push(k / 30, {1: pose(k / 30)})
        b.push(k / 30, {1: pose(k / 30)})
        if k % 10 == 5:
            b.push((k - 2) / 30, {1: pose(99.0)})
            b.push(k / 30, {1: pose(98.0)})
    assert b.windows.fate["late"] == b.windows.fate["repeated"] == 8
    np.testing.assert_array_equal(a.found[1][-1][1], b.found[1][-1][1])


def test_hidden_joints_carry_their_mask_and_a_short_hiding_keeps_the_last_place() -> None:
    r = Recorder(spec())
    for k in range(70):
        visible = np.ones((1, 15), np.float32)
        visible[0, 5] = not 20 <= k < 30
        visible[0, 8] = 0
        r.push(k / 24, {1: np.ones((15, 3), np.float32) * visible[0][:, None]}, visible)
    _, joints, v = r.found[1][0]
    assert (v[:, 8] == 0).all() and (joints[:, 8] == 0).all()
    assert (v[:20, 5] == 1).all() and (v[20:30, 5] == 0).all() and (v[30:, 5] == 1).all()
    np.testing.assert_array_equal(joints[v > 0], 1)


def test_expiry_follows_the_streams_own_clock_and_frees_the_slot() -> None:
    r = Recorder(spec(timeout=2.0), tracks=2)
    r.push(0.0, {1: pose(0), 2: pose(0)})
    for k in range(1, 55):
        r.push(k / 30, {1: pose(0)})
    assert r.windows.live == 2, "unseen for less than the timeout"
    for k in range(55, 91):
        r.push(k / 30, {1: pose(0)})
    assert list(r.windows.streams["cam"].slots) == [1]
    assert r.windows.live == 1
    r.push(3.1, {1: pose(0), 3: pose(0)})
    assert r.windows.live == 2 and r.windows.fate["tracks_full"] == 0


def test_a_reused_slot_starts_with_an_empty_window() -> None:
    r = Recorder(spec(), tracks=1)
    for k in range(40):
        r.push(k / 30, {1: pose(k / 30)})
    r.windows.release([0])
    assert r.windows.who(0) == ("", -1) and r.windows.place(0) is None, "nobody's in between"
    for k in range(40, 90):
        r.push(k / 30, {2: pose(k / 30)})
    assert r.found == {}, "50 frames of 1/30 s are no window of 2 s"


def test_more_tracks_or_streams_than_the_caps_are_dropped_and_counted() -> None:
    r = Recorder(spec(), tracks=2, streams=2)
    r.push(0, {i: pose(0) for i in range(5)})
    assert r.windows.live == 2 and r.windows.fate["tracks_full"] == 3
    r.push(0.1, {i: pose(0) for i in range(5)})
    assert r.windows.fate["tracks_full"] == 6, "those who found no room are looked for anew with each frame"
    assert r.windows.stream_named("b") is not None
    assert r.windows.stream_named("c") is None and r.windows.fate["streams_full"] == 1
    r.windows.drop_stream(r.windows.streams["b"])
    assert r.windows.stream_named("c") is not None


def test_the_same_track_id_in_two_streams_is_two_people() -> None:
    r = Recorder(spec())
    for k in range(60):
        r.push(k / 30, {1: pose(k / 30, 0)}, stream="a")
        r.push(k / 30, {1: pose(k / 30, 9)}, stream="b")
    first, second = r.found[1]
    assert r.windows.live == 2 and np.abs(first[1] - second[1]).max() > 0.5


def test_the_latest_time_that_a_message_can_have_is_handled() -> None:
    r = Recorder(spec())
    latest = 2**62 - 1
    stream = r.windows.stream_named("cam")
    assert stream is not None
    for k in range(70, -1, -1):
        ones = np.ones((1, 15, 3), np.float32)
        t = latest - k * SECOND // 30
        slots = r.windows.slots_of(stream, [1])
        found = list(r.windows.push(slots, np.array([t]), ones, np.ones((1, 15), np.float32)))
    assert r.windows.rows[0] > 48 and found is not None


def test_a_track_has_a_place_where_it_began_and_where_it_is() -> None:
    r = Recorder(spec())
    for k in range(30):
        joints = pose(0) * 0 + np.array([0.1 * k, 1, 0], np.float32)
        joints[0, 0] += 15
        joints[1] = 99
        seen = np.ones((1, 15), np.float32)
        seen[0, 1] = 0
        r.push(3 + k / 10, {7: joints}, seen)
    (slot,) = r.windows.streams["cam"].slots.values()
    place = r.windows.place(slot)
    assert place is not None and r.windows.who(slot) == ("cam", 7)
    assert (place.stream, place.since, place.until) == ("cam", 3 * SECOND, round(5.9 * SECOND))
    # Fourteen joints are seen, one of them 15 to the side of the others.
    np.testing.assert_allclose(place.first, [15 / 14, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(place.last, [2.9 + 15 / 14, 1, 0], rtol=1e-5)
    assert place.size == pytest.approx(15, rel=1e-5)
    assert r.windows.place(slot + 1 if slot < 7 else 0) is None
    r.push(7.0, {7: pose(0)})
    assert r.windows.fate["gaps"] == 1
    after = r.windows.place(slot)
    assert after is not None and (after.since, after.until) == (3 * SECOND, 7 * SECOND), "a gap is no beginning"
    np.testing.assert_array_equal(after.first, place.first)


@given(seed=st.integers(0, 10**6), stride=st.sampled_from([0.05, 0.25, 0.6, 3.0]))
@settings(max_examples=40, deadline=None)
def test_frames_pushed_together_are_as_if_one_after_the_other(seed: int, stride: float) -> None:
    """Of some tracks at some rates, with gaps, repetitions, late frames and clocks set back."""
    rng = np.random.default_rng(seed)
    alone, together = (Recorder(spec(stride=stride)) for _ in range(2))
    slots, t, joints, seen = [], [], [], []
    clock = rng.integers(SECOND, 5 * SECOND, 4)
    for _ in range(400):
        k = int(rng.integers(-1, 4))
        clock[k] += rng.choice([SECOND // 30, SECOND // 12, SECOND // 100, 0, -SECOND // 50, SECOND, -2 * SECOND],
                               p=[0.6, 0.2, 0.15, 0.01, 0.02, 0.01, 0.01])  # fmt: skip
        slots.append(k)
        t.append(clock[k])
        joints.append(rng.normal(size=(15, 3)))
        seen.append(rng.random(15) > 0.2)
    columns = np.array(slots), np.array(t), np.array(joints, np.float32), np.array(seen, np.float32)
    for r in (alone, together):
        stream = r.windows.stream_named("cam")
        assert stream is not None
        assert r.windows.slots_of(stream, range(4)).tolist() == [0, 1, 2, 3]
    for i in range(400):
        alone.take(*(c[i : i + 1] for c in columns))
    cuts = [0, *sorted(rng.integers(0, 400, 3).tolist()), 400]
    for a, b in pairwise(cuts):
        together.take(*(c[a:b] for c in columns))
    assert together.windows.fate == alone.windows.fate
    assert together.found.keys() == alone.found.keys()
    for track, windows in alone.found.items():
        other = together.found[track]
        assert [w[0] for w in other] == [w[0] for w in windows]
        for (_, j0, v0), (_, j1, v1) in zip(windows, other, strict=True):
            np.testing.assert_allclose(j1, j0, atol=1e-6)
            np.testing.assert_allclose(v1, v0, atol=1e-6)


def test_the_end_of_a_window_that_waited_is_its_newest_row() -> None:
    r = Recorder(spec())
    for k in range(60):
        r.push(1 + k / 24, {1: pose(k / 24)})
    (slot,) = r.windows.streams["cam"].slots.values()
    assert r.windows.ends(np.array([slot])) == [SECOND + round(59 / 24 * SECOND)]


def test_the_same_slot_is_found_again_whatever_its_number() -> None:
    assert _previous(np.array([-1, 65535, -1, 65535])).tolist() == [-1, -1, 0, 1]
