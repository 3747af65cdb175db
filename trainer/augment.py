"""Augments whole batches with what another camera or another body would change without changing the action.

Everything works on joints (N, T, 15, 3) in metres and visible (N, T, 15), before the model's own normalisation.
So what the normalisation removes exactly (place, heading, size) still has an effect, through noise and hidden joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edge.skeleton import CORE15, MIRROR, PARENTS
from trainer.camera import project

_LIMBS = tuple(
    [CORE15.index(n) for n in group.split()]
    for group in (
        "l_elbow l_wrist",
        "r_elbow r_wrist",
        "l_shoulder l_elbow l_wrist",
        "r_shoulder r_elbow r_wrist",
        "l_knee l_ankle r_knee r_ankle",
        "l_ankle r_ankle",
        "l_hip l_knee l_ankle",
        "r_hip r_knee r_ankle",
        "head",
    )
)


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How strong each augmentation is: probabilities per sample, sizes as standard deviations or ranges."""

    mirror: float = 0.3
    """Of whole batches: a mirrored batch is like another sensor, so a left-hand wave is never compared with a
    right-hand one."""
    tilt: float = 0.15
    """Radians, for pitch and roll each."""
    bone: float = 0.12
    noise: float = 0.02
    """Metres: the upper end of a sample's white noise."""
    offset: float = 0.02
    """Metres: the upper end of a joint's constant offset in a sample, since sensors disagree on where joints are."""
    hide_joints: float = 0.35
    hide_limb: float = 0.2
    hide_frames: float = 0.2
    flat: float = 0.0
    """Share of samples projected by a virtual camera from 6° below to 29° above, 2.5 to 8 m away: z = 0."""


def augment(
    joints: Tensor, visible: Tensor, config: AugmentConfig, rng: torch.Generator, part: tuple[slice, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return an augmented copy of the batch; shapes as in the module's docstring.

    With `part` = (rows, size), joints and visible are only those rows of a batch of that size. They come out exactly as
    they would if the whole batch were augmented.
    """
    n, t = joints.shape[:2]
    rows, size = part or (slice(None), n)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=rng)[rows]

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=rng)[rows]

    if float(torch.rand(1, generator=rng)) < config.mirror:
        joints, visible = mirror(joints, visible)
    joints = stretch_bones(joints, torch.exp(normal(14) * config.bone))
    yaw = (uniform() * 2 - 1) * torch.pi
    joints = joints @ rotation(yaw, normal() * config.tilt, normal() * config.tilt)[:, None]
    joints = joints * torch.exp(normal(1, 1, 1) * 0.2)
    joints = joints + normal(t, 15, 3) * (uniform(1, 1, 1) ** 2 * config.noise)
    joints = joints + normal(1, 15, 3) * (uniform(1, 1, 1) ** 2 * config.offset)

    hidden = (uniform(15) < uniform(1) / 3) & (uniform(1) < config.hide_joints)
    limb = torch.zeros(len(_LIMBS), 15, dtype=torch.bool)
    for i, members in enumerate(_LIMBS):
        limb[i, members] = True
    which = torch.randint(len(_LIMBS), (size,), generator=rng)[rows]
    hidden |= limb[which] & (uniform(1) < config.hide_limb)
    visible = visible * ~hidden[:, None]
    stretch = hidden_stretches(uniform(15), uniform(15), t) & (uniform(15) < 0.4)[:, None]
    visible = visible * ~(stretch & (uniform(1, 1) < config.hide_frames))
    if config.flat:
        level = torch.zeros(len(joints))
        seen = project(joints @ rotation(level, uniform() * 0.6 - 0.1, level)[:, None], 2.5 + 5.5 * uniform())
        joints = torch.where((uniform() < config.flat)[:, None, None, None], seen, joints)
    return joints * (visible > 0)[..., None], visible


def mirror(joints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror the poses: x negated, left and right joints exchanged."""
    order = torch.from_numpy(MIRROR)
    return joints[:, :, order] * torch.tensor([-1.0, 1.0, 1.0]), visible[:, :, order]


def stretch_bones(joints: Tensor, factor: Tensor) -> Tensor:
    """Multiply every bone's length by its factor (N, 14), keeping the pose's angles and the pelvis' path."""
    out = [joints[:, :, 0]]
    for j in range(1, 15):
        bone = joints[:, :, j] - joints[:, :, PARENTS[j]]
        out.append(out[PARENTS[j]] + bone * factor[:, j - 1, None, None])
    return torch.stack(out, 2)


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Rotation matrices (N, 3, 3) for row vectors: about y, then x, then z."""

    def about(angle: Tensor, i: int, k: int) -> Tensor:
        m = torch.eye(3).repeat(len(angle), 1, 1)
        m[:, i, i] = m[:, k, k] = torch.cos(angle)
        m[:, i, k], m[:, k, i] = -torch.sin(angle), torch.sin(angle)
        return m

    return about(yaw, 0, 2) @ about(pitch, 1, 2) @ about(roll, 0, 1)


def hidden_stretches(start: Tensor, length: Tensor, frames: int) -> Tensor:
    """One hidden stretch per joint, up to half the window: start, length (N, 15) in [0, 1] → (N, T, 15) bool."""
    t = torch.arange(frames)[:, None]
    begin = (start * frames)[:, None]
    return (t >= begin) & (t < begin + (length * frames / 2)[:, None])
