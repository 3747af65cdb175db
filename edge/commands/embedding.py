"""Computes one embedding per clip of a folder, which `haad-edge embed` writes and `evaluate` measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edge.bundle import Bundle
from edge.clip import Clip, categories, iter_clips
from edge.engine import Engine, embed
from edge.errors import ClipError
from edge.skeleton import Float

CUTS = ((0.0, 1.0), (0.08, 1.0), (0.0, 0.92), (0.05, 0.95), (0.1, 1.0), (0.0, 0.9))
"""Stretches (from, to) as shares of a clip. An embedding is the mean over them, since nobody can say to a tenth of a
second where an action begins and ends."""

AT_ONCE = 256
"""Clips whose cuts are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """Embeddings (N, D) of unit rows; each clip's path, category and subject; the errors of clips left out."""

    embedding: Float
    path: list[str]
    category: list[str]
    subject: list[str]
    problems: list[ClipError]


def embed_whole(encode: Callable[[Float, Float], Float], clips: Sequence[Clip], frames: int) -> Float:
    """Embed whole clips (N, D): the mean over `CUTS`, each resampled to the model's frames, scaled to unit length.

    `encode` maps joints (n, frames, 15, 3) and visible (n, frames, 15) to embeddings (n, D).
    """
    out = []
    for i in range(0, len(clips), AT_ONCE):
        some = clips[i : i + AT_ONCE]
        views = [c.at(np.linspace(start, stop, frames) * c.seconds) for c in some for start, stop in CUTS]
        joints, visible = (np.stack(x) for x in zip(*views, strict=True))
        mean = encode(joints, visible).reshape(len(some), len(CUTS), -1).mean(1)
        out.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(out).astype(np.float32)


def embed_folder(root: Path | str, bundle: Bundle, engine: Engine) -> EmbeddedFolder:
    """Embed every clip DIR/<category>/*.npz as a whole. Raises ClipError if none can be read."""
    clips: list[Clip] = []
    rows: list[tuple[str, str, str]] = []
    problems: list[ClipError] = []
    for category, files in categories(root).items():
        for path, clip in iter_clips(files):
            if isinstance(clip, ClipError):
                problems.append(clip)
                continue
            clips.append(clip)
            rows.append((str(path), category, clip.subject))
    if not rows:
        raise ClipError(f"{root}: no clip can be read", why=str(problems[0]))
    paths, names, subjects = (list(column) for column in zip(*rows, strict=True))
    embedding = embed_whole(partial(embed, engine), clips, bundle.manifest.frames)
    return EmbeddedFolder(embedding, paths, names, subjects, problems)
