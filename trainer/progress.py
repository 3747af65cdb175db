"""What the trainings of the encoder and of the motion model have in common: pace, checkpoints, and their record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edge.clip import natural
from edge.errors import OutputError, SettingsError
from trainer.datasets import ClipSet, held_out

CHECKPOINT = "checkpoint.pt"


def new_place(folder: Path, made: str) -> Path:
    """The folder's checkpoint. Raises OutputError where none is, but what a training of this kind makes in the end."""
    checkpoint = folder / CHECKPOINT
    if (folder / made).exists() and not checkpoint.exists():
        raise OutputError(
            f"--out {folder}: holds what an earlier training made",
            why="it would be overwritten",
            fix="name another folder, or remove this one",
        )
    return checkpoint


def learning_rate(step: int, steps: int, highest: float) -> float:
    """The learning rate of a step: a short rise, then half a cosine to zero."""
    rise = min(1.0, (step + 1) / min(200, max(1, steps // 10)))
    return highest * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write everything needed to go on, in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    temporary.replace(path)


def read_checkpoint(path: Path) -> Any:
    """What `write_checkpoint` wrote, on the CPU. Raises SettingsError for a file that is no checkpoint."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as e:
        raise SettingsError(
            f"{path}: not a readable checkpoint", why=str(e)[:200], fix="delete it to start anew"
        ) from None


def of_this_run(state: Any, identity: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's state, if it has all of this run's identity. Raises SettingsError."""
    if not isinstance(state, dict) or any(state.get(k) != v for k, v in identity.items()):
        raise SettingsError(
            f"{path}: the checkpoint of another run",
            why="its configuration or its data differ",
            fix="delete it to start anew",
        )
    return state


def sets_record(sets: Sequence[ClipSet], hold_out: int, terms: Mapping[str, str]) -> list[dict[str, Any]]:
    """The sets of a training, who was held out of each, and under what terms they are, for a manifest."""
    return [
        {
            "name": s.name,
            "clips": len(s.clips),
            "categories": len(s.names),
            "held_out_subjects": sorted(set(s.subjects[held_out(s.subjects, hold_out)].tolist()), key=natural),
            "terms": terms.get(s.name, "not stated"),
            "sha256": s.digest,
        }
        for s in sets
    ]
