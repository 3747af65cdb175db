"""A clock in another unit is told of, and people of whom no window is ever whole; nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge.grid import WindowSpec
from edge.ingest.pace import TimestampCheck, TrackLengthCheck
from edge.windows import Windows

SPEC = WindowSpec.of(48, 2.0, 0.5, 0.5, 3.0)


def found(ticks: list[tuple[float, float, int]]) -> list[str]:
    """What is found of a stream by looks at (now, when it was heard, its t); '' where nothing is."""
    windows, pace, out = Windows(SPEC, 4, 4), TimestampCheck(), []
    stream = windows.stream_named("cam")
    assert stream
    for now, heard, t in ticks:
        stream.heard, stream.t = heard, t
        out.append(pace.find(windows, now).get("cam", ""))
    return out


@pytest.mark.parametrize(
    ("a_second", "slow"),
    [
        (10**9, False),
        (10**8, False),
        (10**10, False),
        (10**6, True),
        (1000, True),
        (1, True),
        (0, True),
        (-1000, False),
    ],
)
def test_only_a_clock_that_hardly_moves_is_told_of(a_second: int, slow: bool) -> None:
    texts = found([(n, n, 10**12 + n * a_second) for n in range(8)])
    assert not any(texts[:5])
    assert {t.partition(" by")[0] for t in texts[5:]} == {"in 5 s its 't' advanced" if slow else ""}
    assert all(t.endswith("nanoseconds") for t in texts[5:]) or not slow


def test_a_pause_is_no_slow_clock() -> None:
    ticks = [(0.0, 0.0, 0), (1.0, 1.0, 10**9), *((float(n), 1.0, 10**9) for n in range(2, 60)), (60.0, 60.0, 2 * 10**9)]
    assert not any(found(ticks))


def test_it_stands_in_the_same_words_while_it_stays_so_and_not_once_it_is_mended() -> None:
    slow = [(n, n, n * (1000 + n)) for n in range(18)]
    texts = found([*slow, *((n, n, n * 10**9) for n in range(18, 30))])
    assert len(set(texts[5:18])) == 1 and texts[5] and not any(texts[21:])


def seen_for(seconds: int, ids: Callable[[int], list[int]], fps: float = 10) -> list[str]:
    """What is found each second of a stream that sends these ids in its frames; '' where nothing is."""
    windows, stay, out = Windows(SPEC, 256, 4), TrackLengthCheck(), []
    stream = windows.stream_named("cam")
    assert stream
    for n in range(int(seconds * fps)):
        t = round(10**9 * (5 + n / fps))
        if windows.advance(stream, t):
            windows.release(windows.gone(stream))
        slots = windows.slots_of(stream, ids(n))
        poses = np.zeros((len(slots), 15, 3), np.float32), np.ones((len(slots), 15), np.float32)
        for _ in windows.push(slots, np.full(len(slots), t), *poses):
            pass
        stream.heard = n / fps
        if n / fps == n // fps:
            out.append(stay.find(windows, n / fps).get("cam", ""))
    return out


@pytest.mark.parametrize(
    ("ids", "fps", "short"),
    [
        (lambda n: [7], 10, False),
        (lambda n: [n], 10, True),
        (lambda n: [3 * n, 3 * n + 1], 10, True),
        (lambda n: [n // 15], 10, True),
        (lambda n: [n // 30], 10, False),
        (lambda n: [n, -1], 10, False),
        (lambda n: [], 10, False),
        (lambda n: [7], 1, True),
    ],
    ids=["one", "new ones", "two new ones", "1.5 s each", "3 s each", "one of them", "nobody", "a frame a second"],
)
def test_where_nobody_stays_for_a_window_it_is_said(ids: Callable[[int], list[int]], fps: float, short: bool) -> None:
    texts = seen_for(45, ids, fps)
    assert not any(texts[:19]) and {bool(t) for t in texts[19:]} == {short}
    assert ("20 s, but nobody for a whole window of 2 s" in texts[-1] and "every 0.5 s" in texts[-1]) or not short


def test_one_who_stays_ends_it() -> None:
    texts = seen_for(45, lambda n: [n if n < 300 else 7])
    assert texts[30] and not any(texts[33:])


def test_a_clock_that_was_right_for_long_and_then_stands_still_is_told_of_soon() -> None:
    assert any(found([(n, n, min(n, 100) * 10**9) for n in range(111)])[100:])


def test_only_seconds_count_in_which_people_are_seen_and_they_add_up() -> None:
    texts = seen_for(80, lambda n: [n] if n // 10 % 8 < 2 else [])  # known for three more seconds each time
    assert not any(texts[:25]) and all(texts[45:])


def test_a_stream_that_stopped_sees_nobody() -> None:
    windows, stay = Windows(SPEC, 4, 4), TrackLengthCheck()
    stream = windows.stream_named("cam")
    assert stream
    windows.slots_of(stream, [7])
    assert not any(stay.find(windows, float(now)) for now in range(60))
