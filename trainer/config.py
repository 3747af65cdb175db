"""Reads the settings of a training run: one YAML file, every field checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edge.settings import read_yaml
from edge.wrong import refusal
from trainer.augment import AugmentConfig
from trainer.encoder import EncoderConfig


class TrainConfig(BaseModel):
    """Defaults train a useful encoder on a folder of clips; `configs/train-base.yaml` made the shipped `base`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("model", pattern=r"^[\w.+-]{1,64}$")
    seed: int = Field(0, ge=0)
    steps: int = Field(4000, ge=1)
    batch: int = Field(256, ge=8)
    per_category: int = Field(6, ge=2)
    share: float = Field(0.75, gt=0, le=1)
    whole: float = Field(0.7, ge=0, le=1, description="share of whole clips; the rest are windows at any phase")
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    temperature: float = Field(0.1, gt=0, description="of the loss")
    average: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which become the model")
    hold_out: int = Field(4, ge=0, description="every n-th subject of a set is held out for validation; 0: none")
    validate_every: int = Field(500, ge=1)
    threads: int = Field(0, ge=0, description="0: all cores")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    motion: Path | None = Field(None, description="a motion model: clips it generates are added to the training set")
    generated: int = Field(1, ge=1, description="clips that the motion model generates from each training clip")
    strength: float = Field(0.15, gt=0, le=1, description="how much generated clips differ from their originals")
    exclude: list[str] = []
    merge: dict[str, str] = {}
    terms: dict[str, str] = {}
    encoder: EncoderConfig = EncoderConfig()
    augment: AugmentConfig = AugmentConfig()

    @field_validator("encoder")
    @classmethod
    def _fits_a_bundle(cls, e: EncoderConfig) -> EncoderConfig:
        """Refuse before the training, not after it, what a bundle's manifest would refuse."""
        for name, low, high in (("frames", 8, 512), ("coefficients", 1, e.frames), ("embedding", 8, 4096)):
            if not low <= getattr(e, name) <= high:
                raise ValueError(f"{name} is {getattr(e, name)}, not between {low} and {high}")
        if not (0 <= e.head <= 1 and 0 <= e.slow <= 1):
            raise ValueError("head and slow are shares, from 0 to 1")
        if e.width < 1 or e.blocks < 0:
            raise ValueError("width is at least 1, blocks at least 0")
        if not 0 < e.seconds <= 60 or not e.temperature > 0:
            raise ValueError("seconds is above 0 and at most 60, temperature above 0")
        return e

    @field_validator("augment")
    @classmethod
    def _is_possible(cls, a: AugmentConfig) -> AugmentConfig:
        for name in ("mirror", "hide_joints", "hide_limb", "hide_frames", "flat"):
            if not 0 <= getattr(a, name) <= 1:
                raise ValueError(f"{name} is {getattr(a, name)}, not a share from 0 to 1")
        for name in ("tilt", "bone", "noise", "offset"):
            if not 0 <= getattr(a, name) < 1:
                raise ValueError(f"{name} is {getattr(a, name)}, not from 0 to below 1")
        return a


def load_config(path: Path | None, **given: Any) -> TrainConfig:
    """Read the file's values, overridden by those `given` that are not None.

    Raises SettingsError, which names the field, if one is invalid.
    """
    return from_yaml(TrainConfig, "training", path, given)


Config = TypeVar("Config", bound=BaseModel)


def from_yaml(kind: type[Config], name: str, path: Path | None, given: dict[str, Any]) -> Config:
    """Read settings of any kind as `load_config` does; `name` is what an error calls them."""
    values = read_yaml(path) if path is not None else {}
    values.update({k: v for k, v in given.items() if v is not None})
    try:
        return kind.model_validate(values)
    except ValidationError as e:
        raise refusal(kind, e, f"{name} setting", str(path or "the command line")) from None
