"""A clock in another unit is told of, and nothing else is."""

from __future__ import annotations

import io

import pytest

from edge.notices import Notices
from edge.pace import Pace
from edge.windows import Stream


def said(ticks: list[tuple[float, float, int]], every: float = 0) -> str:
    """What is said of a stream by looks at (now, when it was heard, its t)."""
    out, stream = io.StringIO(), Stream("cam")
    pace = Pace(Notices(out, every=every))
    for now, heard, t in ticks:
        stream.heard, stream.t = heard, t
        pace.look([stream], now)
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
    assert text.count("stream cam: in 5 s its 't' went on by") == found
    assert "nanoseconds" in text or not found


def test_a_pause_is_no_slow_clock() -> None:
    ticks = [(0.0, 0.0, 0), (1.0, 1.0, 10**9), *((float(n), 1.0, 10**9) for n in range(2, 60)), (60.0, 60.0, 2 * 10**9)]
    assert said(ticks) == ""


def test_it_is_said_again_while_it_stays_so() -> None:
    assert said([(n, n, n) for n in range(18)]).count("cam") == 3
