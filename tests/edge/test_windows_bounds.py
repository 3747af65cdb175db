"""The arena at its bounds: times that are just within, slots that are all taken, people of whom nothing is seen."""

from __future__ import annotations

import numpy as np
import pytest

from edge.grid import SECOND

from .test_windows import Recorder, pose, spec

ONES = np.ones((15, 3), np.float32)


def test_who_finds_no_room_touches_nobody_elses_window() -> None:
    alone, crowded = (Recorder(spec(), tracks=1) for _ in range(2))
    for k in range(60):
        alone.push(k / 30, {1: pose(k / 30)})
        crowded.push(k / 30, {1: pose(k / 30)})
        stranger = crowded.windows.slots_of(crowded.windows.streams["cam"], [2])
        assert stranger.tolist() == [-1], "which is also the number of the last slot, the other's"
        crowded.take(stranger, np.array([k * SECOND // 30 + 9]), 99 * ONES[None], np.ones((1, 15), np.float32))
    assert crowded.found.keys() == alone.found.keys() == {1}
    for (a, *found), (b, *expected) in zip(crowded.found[1], alone.found[1], strict=True):
        assert a == b
        np.testing.assert_array_equal(found[0], expected[0])


def test_many_who_find_no_room_are_left_out_in_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Recorder(spec()).windows
    turns, turn = [], windows._turn
    monkeypatch.setattr(windows, "_turn", lambda s, *rest: (turns.append(len(s)), turn(s, *rest))[1])
    people = np.ones((500, 15, 3), np.float32)
    assert list(windows.push(np.full(500, -1), np.arange(500), people, people[..., 0])) == [] and turns == [500]


def test_just_the_longest_gap_is_filled_whatever_becomes_of_the_others_beside_it() -> None:
    r = Recorder(spec(max_gap=0.5))
    stream = r.windows.stream_named("cam")
    assert stream is not None
    a, b = r.windows.slots_of(stream, [1, 2]).tolist()
    r.take(np.array([a, b, a, b]), np.array([0, 0, SECOND // 2, 0]), ONES[None].repeat(4, 0), np.ones((4, 15)))
    assert r.windows.rows[[a, b]].tolist() == [13, 1]
    assert {k: n for k, n in r.windows.fate.items() if n} == {"repeated": 1}


def test_a_frame_by_just_the_longest_gap_too_early_is_late_and_leaves_the_clock() -> None:
    r = Recorder(spec(max_gap=0.5))
    for t in (1.0, 0.5):
        r.push(t, {1: ONES})
    assert {k: n for k, n in r.windows.fate.items() if n} == {"late": 1}
    assert r.windows.streams["cam"].t == SECOND


def test_who_was_unseen_for_just_the_timeout_is_still_there() -> None:
    windows = Recorder(spec(timeout=2.0)).windows
    stream = windows.stream_named("cam")
    assert stream is not None
    slot = windows.slots_of(stream, [1])
    list(windows.push(slot, np.array([0]), ONES[None], np.ones((1, 15), np.float32)))
    for t, gone in ((2 * SECOND, []), (2 * SECOND + 1, slot.tolist())):
        stream.t = t
        assert windows.gone(stream) == gone


def test_who_goes_before_they_were_written_is_missed_also_in_a_slot_of_a_camera_with_a_later_clock() -> None:
    """A drain may hold more of a stream than the timeout, and is written where a track may be gone."""
    r = Recorder(spec(timeout=2.0), tracks=1)
    r.push(1000.0, {1: ONES}, stream="late")
    r.windows.release([0])
    early = r.windows.stream_named("early")
    assert early is not None
    r.windows.advance(early, SECOND)
    assert r.windows.slots_of(early, [2]).tolist() == [0]
    assert not r.windows.advance(early, 2 * SECOND) and r.windows.advance(early, 4 * SECOND)


def test_a_place_is_where_any_of_a_joint_is_seen_and_nowhere_without_any() -> None:
    r = Recorder(spec())
    joints = np.zeros((2, 15, 3), np.float32)
    joints[0, 0] = 15
    seen = np.array([[0.7] + [1.0] * 14, [0.0] * 15], np.float32)
    with np.errstate(all="raise"):
        r.push(1.0, dict(enumerate(joints)), seen)
        half, hidden = (r.windows.place(slot) for slot in r.windows.streams["cam"].slots.values())
    assert half is not None and hidden is not None
    assert half.first.tolist() == half.last.tolist() == [1, 1, 1]
    assert hidden.first.tolist() == [0, 0, 0] and hidden.size == 0
