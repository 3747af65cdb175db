"""One embedding per clip of a folder: what `haad-edge embed` writes and `evaluate` measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.bundle import Bundle
from edge.clip import categories, iter_clips
from edge.engine import Engine, embed
from edge.errors import ClipError
from edge.skeleton import Float


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """embedding (N, D) unit rows; path, category and subject of each clip; the clips that could not be read."""

    embedding: Float
    path: list[str]
    category: list[str]
    subject: list[str]
    problems: list[ClipError]


def embed_folder(root: Path | str, bundle: Bundle, engine: Engine) -> EmbeddedFolder:
    """Embed every clip DIR/<category>/*.npz, each resampled as a whole to the model's frames.

    Raises ClipError when not one clip can be read.
    """
    joints: list[Float] = []
    visible: list[Float] = []
    rows: list[tuple[str, str, str]] = []
    problems: list[ClipError] = []
    for category, files in categories(root).items():
        for path, clip in iter_clips(files):
            if isinstance(clip, ClipError):
                problems.append(clip)
                continue
            j, v = clip.resampled(bundle.manifest.frames)
            joints.append(j)
            visible.append(v)
            rows.append((str(path), category, clip.subject))
    if not rows:
        raise ClipError(f"{root}: no clip can be read", why=str(problems[0]))
    paths, names, subjects = (list(column) for column in zip(*rows, strict=True))
    return EmbeddedFolder(embed(engine, np.stack(joints), np.stack(visible)), paths, names, subjects, problems)
