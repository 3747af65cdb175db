"""A motion model small enough to be trained in a test."""

from __future__ import annotations

import torch

from trainer.motion.config import MotionConfig
from trainer.motion.diffusion import MotionShape

SHAPE = MotionShape(frames=24, coefficients=8, width=16, layers=1, heads=2)


def tiny(**given: object) -> MotionConfig:
    values = {"name": "tiny", "steps": 7, "batch": 8, "validate_every": 3, "span": 1.0, "shape": SHAPE}
    return MotionConfig.model_validate(values | given)


def silent(step: int, loss: float, news: str) -> None:
    """Discard the reports."""


def noise_of(seed: int, shape: tuple[int, ...] = (3, 8, 45)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
