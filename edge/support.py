"""The support set: a folder of a few normal clips, as features that the engine matches against.

    support/<category>/*.npz ─► windows at every phase ─► embeddings per clip ─► SupportSet (G, K, D) + limits
                                                          (cached by content)

A live stream's window rarely begins where the action does, so a short clip is looped and cut at every phase.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, replace
from edge.clip import Clip, categories, load_clip
from edge.engine import Engine, embed
from edge.errors import ClipError, HaadError, SupportError
from edge.score import limit_of
from edge.skeleton import Float

RULE = "1"
"""The version of `clip_windows`; part of a cached feature's name."""
PHASE_S = 0.25
MAX_CATEGORIES = 256
MAX_WINDOWS = 256
"""Windows kept per category, spread evenly over its clips."""


def clip_windows(clip: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """All windows a stream of this motion would give: joints (N, T, 15, 3), visible (N, T, 15).

    A clip shorter than two windows is taken as a round of a repeated action: it is looped, and cut every PHASE_S of
    one round. A longer one is a stretch of normal activity and is cut as it is.
    """
    step = seconds / frames
    long = clip.seconds >= 2 * seconds
    starts = np.arange(0, clip.seconds - seconds if long else clip.seconds + 1e-9, PHASE_S)
    times = starts[:, None] + np.arange(frames) * step
    joints, visible = (clip.at if long else clip.looped)(times.ravel())
    return joints.reshape(len(starts), frames, *joints.shape[1:]), visible.reshape(len(starts), frames, -1)


@dataclass(frozen=True, slots=True)
class SupportSet:
    """What is normal. features (G, K, D) unit rows, mask (G, K), limit (G,) the distance where the score is 1."""

    names: tuple[str, ...]
    features: Float
    mask: Float
    limit: NDArray[np.float64]
    shots: tuple[int, ...]
    version: str
    problems: tuple[str, ...] = ()


class FeatureCache:
    """Embeddings of a clip's windows, under the hashes of the clip's bytes, the encoder and the cutting rule."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path("~/.cache/haad-edge").expanduser()

    def get(self, key: str, make: Callable[[], Float]) -> Float:
        """The cached array, or what `make` returns, which is then kept. A damaged or unwritable cache is no error."""
        path = self.root / f"{key}.npy"
        try:
            found: Float = np.load(path, allow_pickle=False)
            if found.ndim == 2 and found.dtype == np.float32:
                return found
        except (OSError, ValueError, EOFError):
            pass
        made = make()
        buffer = io.BytesIO()
        np.save(buffer, made)
        try:
            replace(path, buffer.getvalue())
        except OSError:
            pass
        return made


def load_support(root: Path | str, bundle: Bundle, engine: Engine, cache: FeatureCache) -> SupportSet:
    """Embed a support folder. Clips that cannot be read are left out and named in `problems`.

    Raises SupportError when no category is left.
    """
    root = Path(root)
    try:
        folders = categories(root)
    except ClipError as e:
        raise SupportError(str(e)) from None
    if len(folders) > MAX_CATEGORIES:
        raise SupportError(f"{root}: {len(folders)} categories", why=f"at most {MAX_CATEGORIES} are matched at once")
    problems: list[str] = []
    names: list[str] = []
    features: list[list[Float]] = []
    version = hashlib.sha256()
    m = bundle.manifest
    for name, files in folders.items():
        clips: list[Float] = []
        for path in files:
            try:
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                key = f"{m.encoder[:16]}-{RULE}-{m.frames}x{m.seconds:g}-{digest[:32]}"
                clips.append(cache.get(key, lambda path=path: _embed_clip(path, bundle, engine)))  # type: ignore[misc]
                version.update(f"{name}/{digest}\n".encode())
            except (ClipError, OSError) as e:
                problems.append(f"left out of the support: {e}")
        if clips:
            names.append(name)
            features.append(clips)
        else:
            problems.append(f"category '{name}' has no usable clip and is not part of the support")
    if not names:
        raise SupportError(
            f"{root}: no usable clip in any category", why="; ".join(problems)[:600], fix="see haad-edge support show"
        )
    packed, mask = _pack([np.concatenate([_thin(c, len(clips)) for c in clips]) for clips in features])
    calibration = bundle.calibration()
    return SupportSet(
        tuple(names),
        packed,
        mask,
        np.array([limit_of(clips, calibration, m.temperature) for clips in features]),
        tuple(len(c) for c in features),
        version.hexdigest()[:12],
        tuple(problems),
    )


def _embed_clip(path: Path, bundle: Bundle, engine: Engine) -> Float:
    clip = load_clip(path)
    return embed(engine, *clip_windows(clip, bundle.manifest.frames, bundle.manifest.seconds))


def _thin(windows: Float, clips: int) -> Float:
    most = max(1, MAX_WINDOWS // clips)
    if len(windows) <= most:
        return windows
    thinned: Float = windows[np.linspace(0, len(windows) - 1, most).round().astype(int)]
    return thinned


def _pack(features: list[Float]) -> tuple[Float, Float]:
    """Pad to a common K, a multiple of 8."""
    k = -(-max(len(f) for f in features) // 8) * 8
    packed = np.zeros((len(features), k, features[0].shape[1]), np.float32)
    mask = np.zeros((len(features), k), np.float32)
    for g, f in enumerate(features):
        packed[g, : len(f)] = f
        mask[g, : len(f)] = 1
    return packed, mask


def fingerprint(root: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the folder's clips: changes when anything a reload should see does."""
    found = []
    for path in sorted(root.glob("*/*.npz")):
        try:
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
        except OSError:
            continue
    return tuple(found)


class SupportWatcher:
    """Loads the folder anew in a thread of its own when it changes; `take` hands the result over between batches.

    A folder must look the same twice in a row before it is read, so that a copy in progress is not. When the new
    state cannot be used, the old support stays and the reason is said.
    """

    def __init__(
        self, root: Path, load: Callable[[], SupportSet], every: float, say: Callable[[str, str | None], None]
    ) -> None:
        self._root, self._load, self._every, self._say = root, load, every, say
        self._seen = fingerprint(root)
        self._ready: SupportSet | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="support-watcher", daemon=True)
        if every > 0:
            self._thread.start()

    def take(self) -> SupportSet | None:
        """The newest support set loaded since the last call, if any."""
        if self._ready is None:
            return None
        with self._lock:
            ready, self._ready = self._ready, None
        return ready

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        before = self._seen
        while not self._stop.wait(self._every):
            now = fingerprint(self._root)
            if now != self._seen and now == before:
                self._seen = now
                try:
                    loaded = self._load()
                except (HaadError, OSError, MemoryError) as e:
                    self._say(f"the changed support folder is not used: {e}", "support")
                    continue
                with self._lock:
                    self._ready = loaded
            before = now
