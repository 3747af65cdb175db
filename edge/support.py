"""The support set: a folder of a few normal clips, as features that the engine matches against.

    support/<category>/*.npz ─► windows at every phase ─► embeddings per clip ─► SupportSet (G, K, D) + limits
                                                          (cached by content)

A live stream's window rarely begins where the action does, so a short clip is looped and cut at every phase.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, replace
from edge.clip import Clip, categories, clip_bytes, parse_clip
from edge.engine import Engine, embed
from edge.errors import ClipError, SupportError
from edge.history import reading
from edge.score import level_of, margin_of
from edge.skeleton import Float

RULE = "2"
"""The version of `clip_windows`; part of a cached feature's name."""
PHASE_S = 0.25
MAX_CATEGORIES = 256
MAX_WINDOWS = 256
"""Windows kept per category, spread evenly over its clips."""
REFINED, REFINED_VERSION = "calibration.json", 1
"""What `haad-edge calibrate` writes beside the categories, and the version of it that is read."""


def clip_windows(clip: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """All windows a stream of this motion would give: joints (N, T, 15, 3), visible (N, T, 15).

    A clip shorter than two windows is taken as a round of a repeated action: it is looped, and cut every PHASE_S of
    one round. A longer one is a stretch of normal activity and is cut as it is. At most MAX_WINDOWS, spread evenly.
    """
    step = seconds / frames
    long = clip.seconds >= 2 * seconds
    starts = _thin(np.arange(0, clip.seconds - seconds if long else clip.seconds + 1e-9, PHASE_S), MAX_WINDOWS)
    times = starts[:, None] + np.arange(frames) * step
    joints, visible = (clip.at if long else clip.looped)(times.ravel())
    return joints.reshape(len(starts), frames, *joints.shape[1:]), visible.reshape(len(starts), frames, -1)


@dataclass(frozen=True, slots=True)
class SupportSet:
    """What is normal. features (G, K, D) unit rows, mask (G, K), limit (G,) the distance where the score is 1.

    `usual` (G,) is the score that a stranger's normal windows are expected to have; empty: not known. `clips` names
    each category's files, and `origin` (G, K) says which of them a row of `features` was cut from.
    """

    names: tuple[str, ...]
    features: Float
    mask: Float
    limit: NDArray[np.float64]
    shots: tuple[int, ...]
    version: str
    problems: tuple[str, ...] = ()
    usual: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    clips: tuple[tuple[str, ...], ...] = ()
    origin: NDArray[np.intp] = field(default_factory=lambda: np.zeros((0, 0), np.intp))

    def nearest_clip(self, embedding: Float, category: int) -> str:
        """The file of the category whose windows come nearest to an embedding (D,); empty where it is not known."""
        if not self.clips:
            return ""
        near = np.where(self.mask[category] > 0, self.features[category] @ embedding, -2)
        return self.clips[category][int(self.origin[category, near.argmax()])]

    @property
    def summary(self) -> str:
        """The categories with their numbers of clips, in words."""
        return ", ".join(f"{name} ({shots})" for name, shots in zip(self.names, self.shots, strict=True))


class FeatureCache:
    """Embeddings of a clip's windows, under the hashes of the clip's bytes, the encoder and the cutting rule."""

    def __init__(self, root: Path | None = None) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
        # A user without a home leaves the ~ standing.
        self.root = root or Path(tempfile.gettempdir() if home.startswith("~") else home) / "haad-edge"

    def get(self, key: str, width: int, make: Callable[[], Float]) -> Float:
        """The cached array (N, width), or what `make` returns, which is then kept.

        A damaged or unwritable cache is no error.
        """
        path = self.root / f"{key}.npy"
        try:
            found: Float = np.load(path, allow_pickle=False)
            if found.dtype == np.float32 and found.shape == (len(found) or 1, width) and np.isfinite(found).all():
                return found
        except (OSError, ValueError, EOFError, TypeError):
            pass
        made = make()
        buffer = io.BytesIO()
        np.save(buffer, made)
        try:
            replace(path, buffer.getvalue())
        except OSError:
            pass
        return made


def load_support(
    root: Path | str, bundle: Bundle, engine: Engine, cache: FeatureCache, *, refined: bool = True
) -> SupportSet:
    """Embed a support folder. Clips that cannot be read are left out and named in `problems`.

    Its own calibration, if it has one, moves the limits, unless `refined` is false.
    Raises SupportError when no category is left.
    """
    with reading(Path(root)):
        return _load(Path(root), bundle, engine, cache, refined)


def _load(root: Path, bundle: Bundle, engine: Engine, cache: FeatureCache, refined: bool) -> SupportSet:
    try:
        folders = categories(root)
        empty = [p.name for p in root.iterdir() if p.is_dir() and p.name not in folders and p.name[0] != "."]
    except ClipError as e:
        raise SupportError(e.what, why=e.why, fix=e.fix) from None
    except OSError as e:
        raise SupportError(f"{root}: cannot be read", why=e.strerror or str(e)) from None
    if len(folders) > MAX_CATEGORIES:
        raise SupportError(f"{root}: {len(folders)} categories", why=f"at most {MAX_CATEGORIES} are matched at once")
    problems = [
        f"category '{name}' holds no .npz file that can be seen, and is not part of the support" for name in empty
    ]
    names: list[str] = []
    features: list[list[Float]] = []
    used: list[tuple[str, ...]] = []
    version = hashlib.sha256()
    m = bundle.manifest
    for name, files in folders.items():
        clips: list[Float] = []
        sources: list[str] = []
        for path in files:
            try:
                data = clip_bytes(path)
                digest = hashlib.sha256(data).hexdigest()
                key = f"{m.encoder[:16]}-{RULE}-{m.frames}x{m.seconds:g}-{digest[:32]}"
                # The very bytes that were hashed are embedded: the file may change meanwhile.
                make = partial(_embed_clip, data, str(path), bundle, engine)
                clips.append(cache.get(key, m.embedding, make))
                sources.append(os.fsencode(path.name).decode(errors="replace"))
                version.update(os.fsencode(name) + f"/{digest}\n".encode())
            except ClipError as e:
                problems.append(f"left out of the support: {e}")
        if clips:
            names.append(os.fsencode(name).decode(errors="replace"))
            features.append(clips)
            used.append(tuple(sources))
        else:
            problems.append(f"category '{name}' has no usable clip and is not part of the support")
    if not names:
        raise SupportError(
            f"{root}: no usable clip in any category",
            why="; ".join(problems)[:600],
            fix="mend these files or put others in; docs/start.md, 'Clip files', says what they hold",
        )
    fair = [[_thin(c, MAX_WINDOWS // len(clips)) for c in clips] for clips in features]
    packed, mask = _pack([_thin(np.concatenate(clips), MAX_WINDOWS) for clips in fair])
    origin = np.zeros(mask.shape, np.intp)
    for row, clips in zip(origin, fair, strict=True):
        whose = _thin(np.repeat(np.arange(len(clips)), [len(c) for c in clips]), MAX_WINDOWS)
        row[: len(whose)] = whose
    calibration = bundle.calibration()
    factors, text, more = read_refined(root, names, bundle.model) if refined else (np.ones(len(names)), b"", [])
    version.update(text)
    problems += more + lone(names, features, calibration)
    level = np.array([level_of(clips, calibration, m.temperature) for clips in features])
    margin = np.array([margin_of(len(clips), calibration) for clips in features])
    return SupportSet(
        tuple(names),
        packed,
        mask,
        level * margin * factors,
        tuple(len(c) for c in features),
        version.hexdigest()[:12],
        tuple(problems),
        1 / margin,
        tuple(used),
        origin,
    )


def lone(names: list[str], features: list[list[Float]], calibration: Mapping[str, NDArray[Any]]) -> list[str]:
    """What to know of categories of one clip: how unsure their limits are."""
    out = []
    for name, clips in zip(names, features, strict=True):
        if len(clips) == 1:
            sure = ""
            if "error" in calibration:
                several, one = np.exp(np.asarray(calibration["error"], float))
                sure = f": off by a factor of {one:.1f} in one case of three, {several:.1f} with several"
            out.append(f"category '{name}' has one clip, so its limit is a guess{sure}; add clips")
    return out


def read_refined(root: Path, names: list[str], model: str) -> tuple[NDArray[np.float64], bytes, list[str]]:
    """Factors (G,) on the limits from the folder's calibration.json, its bytes, and what is wrong with it.

    Without the file, and with one that cannot be used, factors of 1.
    """
    path, none = root / REFINED, np.ones(len(names))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return none, b"", []
    except OSError as e:
        return none, b"", [f"{path}: cannot be read and is not used ({e.strerror})"]
    again = "haad-edge calibrate makes it anew; without the file the bundle's own limits hold"
    try:
        found = json.loads(data)
        version, made_by = found["version"], found["model"]
        factors = np.array([float(found["levels"].get(n, 1.0)) for n in names]) * float(found["threshold"])
        if version != REFINED_VERSION or made_by != model:
            return none, b"", [f"{path}: made for {made_by}, version {version}, and not used → {again}"]
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise ValueError("a factor is not a positive number")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        return none, b"", [f"{path}: not a calibration and not used: {e} → {again}"]
    return factors, data, []


def _embed_clip(data: bytes, where: str, bundle: Bundle, engine: Engine) -> Float:
    clip = parse_clip(data, where)
    return embed(engine, *clip_windows(clip, bundle.manifest.frames, bundle.manifest.seconds))


def _thin(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` of the rows, evenly spread, at least one."""
    if len(rows) <= max(1, most):
        return rows
    thinned: NDArray[Any] = rows[np.linspace(0, len(rows) - 1, max(1, most)).round().astype(int)]
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


Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(root: Path) -> Fingerprint:
    """Names, sizes and times of the folder's clips: changes when anything a reload should see does."""
    found = []
    # A folder that changes while it is listed makes glob raise; the next look sees it whole.
    with contextlib.suppress(OSError):
        for path in [*root.glob("*/*.npz"), *root.glob(REFINED)]:
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


class SupportWatcher:
    """Loads the folder anew in a thread of its own when it changes; `take` hands the result over between batches.

    `seen` is the fingerprint from before the support in use was loaded. A folder must look the same twice in a row
    before it is read, so that a copy in progress is not. When the new state cannot be used, the old support stays and
    the reason is said.
    """

    def __init__(
        self,
        root: Path,
        load: Callable[[], SupportSet],
        every: float,
        say: Callable[[str, str | None], None],
        seen: Fingerprint,
    ) -> None:
        self._root, self._load, self._every, self._say, self._seen = root, load, every, say, seen
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
                except Exception as e:  # whatever it is, the folder may be mended: the watch must go on
                    self._say(f"the changed support folder is not used: {e}", "support")
                    continue
                with self._lock:
                    self._ready = loaded
            before = now
