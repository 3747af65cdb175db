"""Caches on disk what was computed from clips, so that an engine that restarts or reloads embeds only new clips."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.bundle import replace_file
from edge.outputs import users_folder
from edge.skeleton import Float


class FeatureCache:
    """Arrays under keys that identify their content: hashes of the clip's bytes and the encoder, the rule's version."""

    def __init__(self, root: Path | None = None) -> None:
        temporary = Path(tempfile.gettempdir()) / "haad-edge"
        self.root = root or users_folder("XDG_CACHE_HOME", ".cache") or temporary

    def get(self, key: str, width: int, make: Callable[[], Float]) -> Float:
        """The cached array (N, width), or else the result of `make`, which is then cached.

        A damaged or unwritable cache is not an error.
        """
        path = self.root / f"{key}.npy"
        try:
            found: Float = np.load(path, allow_pickle=False)
            if found.dtype == np.float32 and found.shape == (len(found) or 1, width) and np.isfinite(found).all():
                return found
        except Exception:  # numpy raises many kinds over a damaged file: tokenize.TokenError, BadZipFile …
            pass
        made = make()
        buffer = io.BytesIO()
        np.save(buffer, made)
        try:
            replace_file(path, buffer.getvalue())
        except OSError:
            pass
        return made
