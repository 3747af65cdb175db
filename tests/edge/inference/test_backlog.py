"""Whose turn it is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edge.inference.backlog import Backlog


def test_streams_have_turns_and_a_quiet_one_does_not_wait_for_a_busy_one() -> None:
    b = Backlog()
    for slot in range(5):
        assert b.add("busy", slot)
    assert b.add("quiet", 9)
    assert b.take(3) == [0, 9, 1]
    assert b.add("quiet", 9)
    assert b.take(2) == [2, 9], "the busy one's turn had come first"
    assert b.take(10) == [3, 4] and b.n == 0 and b.take(1) == []


def test_a_track_waits_once_and_keeps_its_place() -> None:
    b = Backlog()
    assert [b.add("a", s) for s in (1, 2, 1)] == [True, True, False]
    assert b.n == 2 and b.take(2) == [1, 2]


def test_who_is_gone_waits_no_longer() -> None:
    b = Backlog()
    for slot in (1, 2, 3):
        b.add("a", slot)
    assert b.forget("a", [2, 7]) == 1 and b.forget("other", [1]) == 0
    assert b.take(5) == [1, 3]
    b.add("a", 1)
    assert b.forget("a", [1]) == 1 and b.n == 0 and b.take(1) == []


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20)), max_size=80), st.integers(1, 9))
def test_everybody_comes_once_and_no_stream_twice_before_another(asked: list[tuple[str, int]], n: int) -> None:
    b = Backlog()
    slots = [(stream, 100 * ord(stream) + k) for stream, k in asked]
    for stream, slot in slots:
        b.add(stream, slot)
    taken: list[int] = []
    while part := b.take(n):
        taken += part
    assert sorted(taken) == sorted({slot for _, slot in slots})
    left = Counter(slot // 100 for slot in taken)
    seen: Counter[int] = Counter()
    for slot in taken:
        mine = seen[slot // 100]
        assert all(seen[k] >= min(left[k], mine) for k in left), "a stream was passed over"
        seen[slot // 100] += 1
