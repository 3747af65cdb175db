"""Tiny clip sets of generated motion, and a tiny configuration, for the tests of `trainer` and `builder`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.clip import Clip, save_clip
from edge.motion import make_motion
from trainer.config import TrainConfig
from trainer.encoder import EncoderConfig

ENCODER = EncoderConfig(frames=16, seconds=1.0, coefficients=8, width=16, blocks=1, embedding=16)


def made(name: str, subject: int, trial: int = 1, seconds: float = 1.5) -> Clip:
    """One clip of a subject; how it is performed depends on the trial."""
    return replace(make_motion(name, seconds=seconds, fps=20, seed=10 * subject + trial), subject=str(subject))


def write_set(root: Path, motions: Iterable[str], *, subjects: int = 4, trials: int = 2, seconds: float = 1.5) -> Path:
    """root/<motion>/s<subject>_t<trial>.npz"""
    for name in motions:
        for s in range(1, subjects + 1):
            for t in range(1, trials + 1):
                save_clip(root / name / f"s{s}_t{t}.npz", made(name, s, t, seconds))
    return root


def tiny(**given: Any) -> TrainConfig:
    """A configuration that trains in a second."""
    values = {
        "name": "tiny",
        "steps": 8,
        "batch": 24,
        "per_category": 4,
        "validate_every": 4,
        "threads": 1,
        "device": "cpu",
    }
    return TrainConfig(**({**values, "encoder": ENCODER} | given))


def windows(*motions: str, frames: int = 48, fps: float = 30.0, seed: int = 3) -> tuple[Tensor, Tensor]:
    """The first `frames` frames of each motion, all seen: joints (N, T, 15, 3), visible (N, T, 15)."""
    clips = [make_motion(m, seconds=frames / fps, fps=fps, seed=seed) for m in motions]
    joints = torch.stack([torch.from_numpy(c.joints[:frames]) for c in clips])
    return joints, torch.ones(joints.shape[:3])
