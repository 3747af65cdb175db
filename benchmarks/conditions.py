"""Degrades well recorded clips to what cameras really deliver: the conditions of `benchmarks.accuracy`.

Each takes clips and a seed, and returns clips of the same length, of the same people doing the same. The support stays
as it was recorded unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from edge.clip import Clip
from edge.skeleton import CORE15
from trainer.augment import rotation, stretch_bones
from trainer.camera import views

Change = Callable[[Sequence[Clip], int], list[Clip]]
LEGS = [CORE15.index(f"{side}_{n}") for side in "lr" for n in ("hip", "knee", "ankle")]


@dataclass(frozen=True, slots=True)
class Condition:
    """How the judged clips are changed, and whether the support is changed in the same way."""

    judged: Change
    support_too: bool = False


def _each(clips: Sequence[Clip], seed: int, change: Callable[[Clip, np.random.Generator], Clip]) -> list[Clip]:
    """Change every clip with a random generator of its own."""
    return [change(c, np.random.default_rng((seed, 5, i))) for i, c in enumerate(clips)]


def _hide(clip: Clip, kept: np.ndarray) -> Clip:
    """Hide all joints but those that `kept` (T or 1, 15) marks."""
    v = (clip.visible * kept).astype(np.float32)
    return replace(clip, joints=(clip.joints * (v > 0)[..., None]).astype(np.float32), visible=v)


def hidden(clips: Sequence[Clip], seed: int, *, each_frame: bool) -> list[Clip]:
    """Hide a third of the joints at random: the same throughout a clip, or different ones in each frame."""
    rng = np.random.default_rng((seed, 3))
    out = []
    for c in clips:
        shape = (len(c.joints) if each_frame else 1, 15)
        out.append(_hide(c, np.argsort(np.argsort(rng.random(shape), axis=1), axis=1) >= 5))
    return out


def without_legs(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Hide everything from the hips down, as when people are half out of view."""
    kept = np.ones((1, 15))
    kept[:, LEGS] = 0
    return [_hide(c, kept) for c in clips]


def sampled(clips: Sequence[Clip], seed: int, *, fps: float = 0, frames: int = 0) -> list[Clip]:
    """Sample clips as a slower camera does: at `fps` from a random moment on, or as `frames` from first to last."""

    def change(c: Clip, rng: np.random.Generator) -> Clip:
        rate = (frames - 1) / c.seconds if frames else fps
        start = 0.0 if frames else rng.uniform(0, min(1 / fps, c.seconds / 2))
        times = start + np.arange(frames) / rate if frames else np.arange(start, c.seconds, 1 / rate)
        joints, visible = c.at(times)
        return replace(c, joints=joints, visible=visible, fps=rate)

    return _each(clips, seed, change)


def jitter(clips: Sequence[Clip], seed: int, metres: float = 0.03) -> list[Clip]:
    """Add white noise to every joint in every frame."""
    return _each(
        clips,
        seed,
        lambda c, rng: replace(c, joints=c.joints + rng.normal(0, metres, c.joints.shape).astype(np.float32)),
    )


def other_bodies(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Scale bodies to half to full size, children among them, and each bone by a random factor (σ 15 %)."""

    def change(c: Clip, rng: np.random.Generator) -> Clip:
        factor = np.exp(rng.normal(0, 0.15, (1, 14))) * rng.uniform(0.5, 1)
        made = stretch_bones(torch.from_numpy(c.joints)[None], torch.from_numpy(factor.astype(np.float32)))
        return replace(c, joints=made[0].numpy())

    return _each(clips, seed, change)


def tilted(clips: Sequence[Clip], seed: int, degrees: float = 15) -> list[Clip]:
    """Tilt the camera by up to `degrees` in pitch and in roll, and turn the person to any heading."""

    def change(c: Clip, rng: np.random.Generator) -> Clip:
        angles = rng.uniform(-1, 1, 3) * [np.pi, np.deg2rad(degrees), np.deg2rad(degrees)]
        turn = rotation(*(torch.tensor([a], dtype=torch.float32) for a in angles))[0].numpy()
        return replace(c, joints=(c.joints @ turn).astype(np.float32))

    return _each(clips, seed, change)


CONDITIONS: dict[str, Condition] = {
    "2-D views, support from others": Condition(lambda c, s: views(c, seed=s), support_too=True),
    "2-D views, support in 3-D": Condition(lambda c, s: views(c, seed=s)),
    "a third hidden in each frame": Condition(lambda c, s: hidden(c, s, each_frame=True)),
    "a third hidden throughout": Condition(lambda c, s: hidden(c, s, each_frame=False)),
    "legs out of view": Condition(without_legs),
    "10 frames a second": Condition(lambda c, s: sampled(c, s, fps=10)),
    "15 frames": Condition(lambda c, s: sampled(c, s, frames=15)),
    "3 cm of jitter": Condition(jitter),
    "other bodies": Condition(other_bodies),
    "any heading, tilted by up to 15°": Condition(tilted),
}
