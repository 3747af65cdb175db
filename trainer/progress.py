"""Shared by the trainings of the encoder and of the motion model: stopping, learning rate, checkpoints, record."""

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
    """A training was stopped by a signal at this step, and its checkpoint is written."""


@contextlib.contextmanager
def stop_on_signal(enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM has come, so that the step in progress can be finished.

    A second signal of the same kind has its usual effect. Signals can be caught only in the main thread.
    """
    received = False

    def note(number: int, frame: object) -> None:
        nonlocal received
        received = True
        signal.signal(number, before[signal.Signals(number)])

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    enabled = enabled and threading.current_thread() is threading.main_thread()
    try:
        for n in before if enabled else ():
            signal.signal(n, note)
        yield lambda: received
    finally:
        for n, handler in before.items() if enabled else ():
            signal.signal(n, handler)


def never() -> bool:
    """For a training that nothing stops."""
    return False


def checkpoint_path(folder: Path, made: str) -> Path:
    """The path of the folder's checkpoint, whether there is one or not.

    Raises OutputError if there is none, but the file `made` of a finished training.
    """
    checkpoint = folder / CHECKPOINT
    if (folder / made).exists() and not checkpoint.exists():
        raise OutputError(
            f"--out {folder}: holds the result of an earlier training",
            why="this training would overwrite it",
            fix="name another folder, or remove this one",
        )
    return checkpoint


def learning_rate(step: int, steps: int, highest: float) -> float:
    """The learning rate of a step: a short linear rise, then half a cosine down to zero."""
    rise = min(1.0, (step + 1) / min(200, max(1, steps // 10)))
    return highest * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    temporary.replace(path)


def read_checkpoint(path: Path) -> Any:
    """Read what `write_checkpoint` wrote, onto the CPU. Raises SettingsError if the file is no readable checkpoint."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as e:
        raise SettingsError(
            f"{path}: not a readable checkpoint", why=str(e)[:200] or repr(e), fix="delete it to start anew"
        ) from None


def check_state(state: Any, identity: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Check a checkpoint's state and return it. Raises SettingsError, with the differences, if it is of another run."""
    found: dict[str, Any] = state if isinstance(state, dict) else {}
    differ = []
    for k, v in identity.items():
        if (had := found.get(k)) != v:
            fields = [n for n in v if had.get(n) != v[n]] if isinstance(v, dict) and isinstance(had, dict) else []
            differ.append(f"{k} ({', '.join(fields)})" if fields else k)
    if differ:
        raise SettingsError(
            f"{path}: the checkpoint of another run",
            why=f"it differs in its {' and its '.join(differ)}",
            fix="delete it to start anew",
        )
    return found


def sets_record(sets: Sequence[ClipSet], hold_out: int, terms: Mapping[str, str]) -> list[dict[str, Any]]:
    """A manifest's record of the sets trained on: who was held out of each, and the terms of its use."""
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
