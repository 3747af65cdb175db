"""Waves against each frame mapped on its own."""

from __future__ import annotations

import numpy as np
import pytest

from edge.skeleton import LAYOUTS
from edge.wave import waves
from edge.wire import PoseFrame


def frames(seed: int, bad: bool = False) -> list[PoseFrame]:
    """A drain: streams of several layouts and kinds, empty messages, each stream's `t` rising."""
    rng = np.random.default_rng(seed)
    kinds = [("coco17", 2, True, (640.0, 480.0)), ("coco17", 2, True, None), ("core15", 3, False, None)]
    kinds += [("ntu25", 3, True, None), ("mediapipe33", 3, False, None)]
    out = []
    for k in range(40):
        s = int(rng.integers(7))
        name, c, confident, size = kinds[s % len(kinds)]
        layout, people = LAYOUTS[name], int(rng.integers(0, 5))
        joints = rng.normal(100, 50, (people, layout.size, c)).astype(np.float32)
        if bad and people and s == 2:
            joints[0, 3] = np.nan
        visible = rng.random((people, layout.size)).astype(np.float32) if confident else None
        out.append(PoseFrame(f"s{s}", k, k, layout, np.arange(people), joints, visible, size))
    return out


@pytest.mark.parametrize("seed", range(4))
def test_every_person_is_mapped_as_if_alone(seed: int) -> None:
    drained = frames(seed)
    found = list(waves(drained, 0.3))
    assert sum(len(w.frames) for w in found) == len(drained)
    for wave in found:
        at = 0
        for frame in wave.frames:
            joints, visible, _ = frame.core15(0.3)
            part = slice(at, at + len(frame.ids))
            np.testing.assert_allclose(wave.joints[part], joints, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(wave.visible[part], visible, atol=1e-6)
            at += len(frame.ids)
        assert at == len(wave.joints) == len(wave.visible)


def test_a_wave_holds_a_stream_once_and_streams_keep_their_order() -> None:
    drained = frames(5)
    found = list(waves(drained, 0.3))
    for wave in found:
        assert len({f.stream for f in wave.frames}) == len(wave.frames)
    for name in {f.stream for f in drained}:
        got = [f.seq for w in found for f in w.frames if f.stream == name]
        assert got == [f.seq for f in drained if f.stream == name]


def test_bad_joints_are_counted_for_the_frame_that_sent_them() -> None:
    found = {w.frames[i].stream: n for w in waves(frames(6, bad=True), 0.3) for i, n in w.bad.items()}
    assert found == {"s2": 1}
    assert not any(w.bad for w in waves(frames(6), 0.3))


def test_nothing_drained_or_nobody_in_view() -> None:
    assert list(waves([], 0.3)) == []
    empty = PoseFrame("a", 0, 1, LAYOUTS["core15"], np.zeros(0, np.int64), np.zeros((0, 15, 3), np.float32))
    (wave,) = waves([empty], 0.3)
    assert wave.joints.shape == (0, 15, 3) and wave.visible.shape == (0, 15) and wave.bad == {}
