"""When windows come due: people take turns within a stride."""

from __future__ import annotations

import numpy as np
import pytest

from edge.grid import SECOND, phase_of

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
