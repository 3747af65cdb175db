"""What the trainings of the encoder and of the motion model have in common: pace, checkpoints, and their record."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edge.clip import natural
from edge.errors import OutputError, SettingsError
from trainer.datasets import ClipSet, held_out

CHECKPOINT = "checkpoint.pt"


class Stopped(Exception):
    """A training was told to stop, at this step, and its checkpoint is written."""


@contextlib.contextmanager
def stopping(heed: bool = True) -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came: the step under way is finished first. The second one ends the process as ever."""
    came = False

    def note(number: int, frame: object) -> None:
        nonlocal came
        came = True
        signal.signal(number, before[signal.Signals(number)])

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    heed = heed and threading.current_thread() is threading.main_thread()
    try:
        for n in before if heed else ():
            signal.signal(n, note)
        yield lambda: came
    finally:
        for n, was in before.items() if heed else ():
            signal.signal(n, was)


def never() -> bool:
    """Nobody stops it."""
    return False


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
            f"{path}: not a readable checkpoint", why=str(e)[:200] or repr(e), fix="delete it to start anew"
        ) from None


def of_this_run(state: Any, identity: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's state, if it has all of this run's identity. Raises SettingsError."""
    found: dict[str, Any] = state if isinstance(state, dict) else {}
    differ = []
    for k, v in identity.items():
        if (had := found.get(k)) != v:
            fields = [n for n in v if had.get(n) != v[n]] if isinstance(v, dict) and isinstance(had, dict) else []
            differ.append(f"{k} ({', '.join(fields)})" if fields else k)
    if differ:
        raise SettingsError(
            f"{path}: the checkpoint of another run",
            why=f"what differs is its {' and its '.join(differ)}",
            fix="delete it to start anew",
        )
    return found


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
