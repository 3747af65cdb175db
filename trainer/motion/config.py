"""Reads the settings of a motion model's training: one YAML file, every field checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainer.config import from_yaml
from trainer.motion.diffusion import MotionShape


class MotionConfig(BaseModel):
    """Defaults train in about a quarter of an hour on one core; `configs/train-motion.yaml` is the example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("motion", pattern=r"^[\w.+-]{1,64}$")
    seed: int = Field(0, ge=0)
    steps: int = Field(5500, ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    average: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which become the model")
    span: float = Field(4.0, gt=0, le=60, description="seconds; a longer clip is cut to a stretch of this length")
    unconditional: float = Field(0.3, ge=0, le=1, description="share of samples trained without a given beginning")
    mirror: float = Field(0.5, ge=0, le=1, description="share of samples with left and right exchanged")
    hold_out: int = Field(4, ge=0, description="every n-th subject of a set is held out; 0: none")
    validate_every: int = Field(500, ge=1)
    threads: int = Field(1, ge=0, description="0: all cores")
    exclude: list[str] = []
    terms: dict[str, str] = {}
    shape: MotionShape = MotionShape()

    @field_validator("shape")
    @classmethod
    def _can_be_built(cls, s: MotionShape) -> MotionShape:
        if not 8 <= s.frames <= 512:
            raise ValueError(f"frames is {s.frames}, not between 8 and 512")
        if not 1 <= s.coefficients <= s.frames:
            raise ValueError(f"coefficients is {s.coefficients}, not between 1 and frames")
        if s.heads < 1 or s.layers < 1 or s.width < 2 or s.width % (2 * s.heads):
            raise ValueError("layers and heads are at least 1, width a multiple of twice the heads")
        return s


def load_motion_config(path: Path | None, **given: Any) -> MotionConfig:
    """Read the file's values, overridden by those `given` that are not None.

    Raises SettingsError, which names the field, if one is invalid.
    """
    return from_yaml(MotionConfig, "motion", path, given)
