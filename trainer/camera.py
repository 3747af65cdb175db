"""Simulates a camera: the 2-D keypoints that a motion would have, seen from where people mount cameras.

The people in the clips face −z, where the camera stands. Keypoints come out in metres at the distance of the body, with
z = 0, as the device makes them from an image's. From there on place and size do not matter, nor which way the image's x
runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edge.clip import Clip
from edge.skeleton import CORE15, Float

BODY = 1.7
"""Height of the body in metres; noise is stated as a share of it."""
_RIGHT, _LEFT = ([CORE15.index(f"{side}_{n}") for n in ("shoulder", "hip")] for side in "rl")


def project(joints: Tensor, distance: Tensor) -> Tensor:
    """Project joints (N, T, 15, 3) as cameras see them at `distance` (N,) metres from their mean, on its −z side.

    Returns the same shape, with z = 0.
    """
    middle = joints.mean((1, 2), keepdim=True)
    x = joints - middle
    far = distance[:, None, None, None]
    # Nobody stands in the lens: joints nearer to the camera than half the distance are treated as at half of it.
    flat = x[..., :2] * far / (far + x[..., 2:]).clamp_min(far / 2)
    return torch.cat([flat + middle[..., :2], torch.zeros_like(x[..., 2:])], -1)


def front(joints: Float) -> float:
    """Find the yaw (radians) by which joints (T, 15, 3) must be turned to face −z on average."""
    across = (joints[:, _RIGHT] - joints[:, _LEFT]).mean((0, 1))
    return float(np.arctan2(across[2], across[0]))


def views(
    clips: Sequence[Clip],
    *,
    aside: float = 0,
    yaw: float = 60,
    pitch: tuple[float, float] = (0, 20),
    noise: float = 0.02,
    distance: tuple[float, float] = (3, 6),
    seed: int = 0,
) -> list[Clip]:
    """Project each clip with a camera of its own, drawn at random.

    The camera stands `aside` degrees off the person's front, give or take `yaw` degrees, looks from `pitch` degrees
    above, `distance` metres away, and adds white noise of `noise` body heights to every keypoint.
    """
    out = []
    for i, clip in enumerate(clips):
        rng = np.random.default_rng((seed, i))
        a = front(clip.joints) + np.deg2rad(aside + rng.uniform(-yaw, yaw))
        b = np.deg2rad(rng.uniform(*pitch))
        about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
        # Seen from above, what is nearer to the camera (at −z) appears lower in the picture.
        about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        turned = torch.from_numpy((clip.joints @ about_y @ about_x).astype(np.float32))
        flat = project(turned[None], torch.tensor([rng.uniform(*distance)], dtype=torch.float32))[0].numpy()
        flat[..., :2] += rng.normal(size=flat[..., :2].shape) * noise * BODY
        out.append(replace(clip, joints=(flat * (clip.visible > 0)[..., None]).astype(np.float32)))
    return out
