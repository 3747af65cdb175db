"""When windows come due: people take turns within a stride."""

from __future__ import annotations

import numpy as np
import pytest

from edge.grid import SECOND, WindowSpec, phase_of

from .test_windows import ROWS, Recorder, pose, spec


def test_people_who_come_together_are_judged_in_turns() -> None:
    r = Recorder(spec(0.25), tracks=12)
    for k in range(120):
        r.push(k / 30, {i: pose(k / 30) for i in range(12)})
    ends = [{round((end / SECOND - 47 / 24) * ROWS) % 6 for end, *_ in r.found[i][1:]} for i in range(12)]
    assert sorted(e.pop() for e in ends) == sorted([*range(6)] * 2), "two people at each row of a stride"
    assert not any(ends), "each at its own row for good"
    assert {phase_of(f"cam{c}", 0, 6) for c in range(40)} == set(range(6)), "and so are those of different cameras"


def test_a_wider_stride_leaves_first_windows_alone_and_half_the_people_take_turns_with_the_others() -> None:
    r = Recorder(spec(0.25), tracks=12)
    r.windows.widen = 2
    for k in range(120):
        r.push(k / 30, {i: pose(k / 30) for i in range(12)})
    ends = [np.array([end for end, *_ in r.found[i]]) / SECOND for i in range(12)]
    assert all(e[0] == pytest.approx(47 / 24, abs=1e-6) for e in ends)
    for e in ends:
        np.testing.assert_allclose(np.diff(e[1:]), 0.5, atol=1e-6)
    strides = np.ceil((np.concatenate([e[1:] - e[0] for e in ends]) - 1e-6) / 0.25).astype(int)
    assert max(np.bincount(strides)) <= 8, "in each stride about half of the people, not all of them in every second"


def test_a_spec_in_seconds_is_rounded_and_a_stride_has_at_least_one_row() -> None:
    made = WindowSpec.of(48, 2.0, 0.24, 0.0099999999, 1.0099999999)
    assert (made.stride, made.max_gap, made.timeout) == (6, 10_000_000, 1_010_000_000)
    assert WindowSpec.of(48, 2.0, 0.001, 0.5, 2.0).stride == 1


def test_as_many_windows_have_been_due_as_came_due_row_by_row() -> None:
    for stride, phase in ((1, 0), (6, 0), (6, 1), (6, 5), (100, 70)):
        one_by_one = [n == 48 or (n > 48 and (n - 48) % stride == phase) for n in range(300)]
        found = spec(stride / ROWS).due(np.arange(300), np.full(300, phase))
        np.testing.assert_array_equal(found, np.cumsum(one_by_one), err_msg=f"{stride}, {phase}")


def test_a_phase_is_the_same_in_every_process() -> None:
    """A hash of Python's differs from run to run, and so would the windows of a replay."""
    assert [phase_of(stream, 5, 6) for stream in ("cam", "dock", "Tür")] == [5, 0, 3]
