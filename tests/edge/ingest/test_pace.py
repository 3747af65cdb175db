"""A clock in another unit is told of, and people of whom no window is ever whole; nothing else is."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

from edge.grid import WindowSpec
from edge.ingest.pace import TimestampCheck, TrackLengthCheck
from edge.notices import Notices
from edge.windows import Stream, Windows


def said(ticks: list[tuple[float, float, int]], every: float = 0) -> str:
    """What is said of a stream by looks at (now, when it was heard, its t)."""
    out, stream = io.StringIO(), Stream("cam")
    pace = TimestampCheck(Notices(out, every=every))
    for now, heard, t in ticks:
        stream.heard, stream.t = heard, t
        pace.check([stream], now)
    return out.getvalue()


@pytest.mark.parametrize(
    ("a_second", "found"),
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
def test_only_a_clock_that_hardly_moves_is_told_of(a_second: int, found: bool) -> None:
    text = said([(n, n, 10**12 + n * a_second) for n in range(8)])
    assert text.count("stream cam: in 5 s its 't' advanced by") == found
    assert "nanoseconds" in text or not found


def test_a_pause_is_no_slow_clock() -> None:
    ticks = [(0.0, 0.0, 0), (1.0, 1.0, 10**9), *((float(n), 1.0, 10**9) for n in range(2, 60)), (60.0, 60.0, 2 * 10**9)]
    assert said(ticks) == ""


def test_it_is_said_again_while_it_stays_so() -> None:
    assert said([(n, n, n) for n in range(18)]).count("cam") == 3


def seen_for(seconds: int, ids: Callable[[int], list[int]], fps: float = 10) -> str:
    """What is said of a stream that sends these ids in its frames."""
    out = io.StringIO()
    windows, stay = Windows(WindowSpec.of(48, 2.0, 0.5, 0.5, 3.0), 256, 4), TrackLengthCheck(Notices(out, every=0))
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
            stay.check(windows, n / fps)
    return out.getvalue()


@pytest.mark.parametrize(
    ("ids", "fps", "found"),
    [
        (lambda n: [7], 10, 0),
        (lambda n: [n], 10, 2),
        (lambda n: [3 * n, 3 * n + 1], 10, 2),
        (lambda n: [n // 15], 10, 2),
        (lambda n: [n // 30], 10, 0),
        (lambda n: [n, -1], 10, 0),
        (lambda n: [], 10, 0),
        (lambda n: [7], 1, 2),
    ],
    ids=["one", "new ones", "two new ones", "1.5 s each", "3 s each", "one of them", "nobody", "a frame a second"],
)
def test_where_nobody_stays_for_a_window_it_is_said(ids: Callable[[int], list[int]], fps: float, found: int) -> None:
    text = seen_for(45, ids, fps)
    assert text.count("stream cam: people have been seen for") == found
    assert ("20 s, but nobody for a whole window of 2 s" in text and "every 0.5 s" in text) or not found
