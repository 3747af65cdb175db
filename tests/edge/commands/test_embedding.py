"""Whole clips as one embedding each."""

from __future__ import annotations

import numpy as np
import pytest

from edge.clip import Clip
from edge.commands import embedding
from edge.commands.embedding import CUTS, embed_whole


def rising(frames: int, fps: float) -> Clip:
    """The pelvis' x is the time in seconds."""
    joints = np.zeros((frames, 15, 3), np.float32)
    joints[:, 0, 0] = np.arange(frames) / fps
    return Clip(joints, np.ones((frames, 15), np.float32), fps)


def ends(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Stands in for an encoder: where a window begins and ends, as an angle, so that rows have unit length."""
    assert joints.shape[1:] == (12, 15, 3) and visible.shape == joints.shape[:3]
    angle = 0.1 * joints[:, 0, 0, 0] + 0.3 * joints[:, -1, 0, 0]
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_a_clip_is_the_mean_of_its_cuts_and_of_unit_length(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [rising(31, 15.0), rising(61, 15.0), rising(16, 15.0)]
    expected = []
    for seconds in (2.0, 4.0, 1.0):
        angle = np.array([0.1 * a * seconds + 0.3 * b * seconds for a, b in CUTS])
        mean = np.array([np.cos(angle).mean(), np.sin(angle).mean()])
        expected.append(mean / np.hypot(*mean))
    whole = embed_whole(ends, clips, 12)
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    assert whole.dtype == np.float32
    monkeypatch.setattr(embedding, "AT_ONCE", 2)
    np.testing.assert_array_equal(embed_whole(ends, clips, 12), whole)


def test_the_whole_clip_is_among_its_cuts_and_none_leaves_it() -> None:
    assert (0.0, 1.0) in CUTS
    assert all(0 <= a < b <= 1 and b - a > 0.89 for a, b in CUTS)
