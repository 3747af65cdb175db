"""Generates the windows of synthetic motion that builds are judged on. Needs neither data nor torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.motion import MOTIONS, make_motion
from edge.skeleton import Float
from edge.support.enrol import clip_windows

FAR_M = (20.0, 0.0, -35.0)
"""How far from the origin the people of the third set walk."""


def example_windows(frames: int, seconds: float) -> tuple[Float, Float]:
    """Windows of synthetic motion, all joints visible and then a tenth hidden: (N, T, 15, 3), (N, T, 15)."""
    joints, visible = (np.concatenate(x) for x in zip(*_windows(frames, seconds, 0), strict=True))
    hidden = _hide(visible, 0)
    return np.concatenate([joints, joints * hidden[..., None]]), np.concatenate([visible, hidden])


@dataclass(frozen=True, slots=True)
class Examples:
    """joints (N, T, 15, 3), visible (N, T, 15), category (N,); `support` (N,) marks the support windows.

    Every category has the same number of support windows, all of one person; the others are of two more people.
    """

    joints: Float
    visible: Float
    category: NDArray[np.intp]
    support: NDArray[np.bool_]

    @property
    def categories(self) -> int:
        return int(self.category.max()) + 1


def gate_examples(frames: int, seconds: float) -> Examples:
    """Three people in every synthetic motion: unchanged; with a tenth of the joints hidden; far away, in millimetres.

    The third overflows a float16 graph that does not keep raw coordinates and their squares in float32. One window
    shows nobody: a graph whose smallest numbers round to 0 divides 0 by 0 there.
    """
    joints, visible, category, support = [], [], [], []
    for seed in range(3):
        for c, (j, v) in enumerate(_windows(frames, seconds, seed)):
            if seed == 1:
                v = _hide(v, seed)
                v[:1] *= c > 0
                j = j * v[..., None]
            elif seed == 2:
                j = ((j + np.array(FAR_M)) * 1000).astype(np.float32)
            joints.append(j)
            visible.append(v)
            category.append(np.full(len(j), c))
            support.append(np.full(len(j), seed == 0))
    return Examples(*(np.concatenate(x) for x in (joints, visible, category, support)))


def _windows(frames: int, seconds: float, seed: int) -> list[tuple[Float, Float]]:
    return [clip_windows(make_motion(name, seconds=3, seed=seed), frames, seconds) for name in MOTIONS]


def _hide(visible: Float, seed: int) -> Float:
    random = np.random.default_rng(seed).random(visible.shape)
    return visible * (random > 0.1).astype(np.float32)
