"""Loads a support folder, a few clips of each normal action, as the features that the engine matches against.

    support/<category>/*.npz ─┬─► windows at every phase ─► embeddings per clip ─┬─► SupportSet (G + P, K, D) + limits
                              └─► windows between two ────► embeddings per pair ─┘
                                  categories (edge.support.transitions)   (cached by content)

A live stream's window rarely begins where the action does, so a short clip is looped and cut at every phase.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.clip import Clip, categories, clip_bytes, parse_clip
from edge.engine import Engine, embed
from edge.errors import ClipError, SupportError
from edge.ingest.posture import NONE, POSTURE_RULE, SEE, clip_cues, faults
from edge.score import NO_TRANSITIONS, level_of, margin_of
from edge.skeleton import Float
from edge.support.cache import FeatureCache
from edge.support.history import content, reading
from edge.support.transitions import RULE as TRANSITION_RULE
from edge.support.transitions import TransitionPlan, chosen, paired, repeated, transition_windows

RULE = "3"
"""The version of the code that cuts a clip file into windows; part of a cached feature's key."""
PHASE_S = 0.25
MAX_CATEGORIES = 256
MAX_WINDOWS = 256
"""Windows kept per category, spread evenly over its clips."""
REFINED, REFINED_VERSION = "calibration.json", 1
"""The file that `haad-edge calibrate` writes beside the categories, and the version of it that this program reads."""


def clip_windows(clip: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """Cut the windows that a stream of this motion would give: joints (N, T, 15, 3), visible (N, T, 15).

    A clip shorter than two windows is taken as one round of a repeated action: it is looped, and a window begins every
    PHASE_S of the round. A longer clip is a stretch of normal activity and is cut as it is. Returns at most
    MAX_WINDOWS, spread evenly.
    """
    step = seconds / frames
    long = clip.seconds >= 2 * seconds
    starts = _thin(np.arange(0, clip.seconds - seconds if long else clip.seconds + 1e-9, PHASE_S), MAX_WINDOWS)
    return cut(clip.at if long else clip.looped, starts, frames, step)


def cut(
    at: Callable[[NDArray[np.floating]], tuple[Float, Float]], starts: NDArray[np.floating], frames: int, step: float
) -> tuple[Float, Float]:
    """Windows of `frames` rows, `step` seconds apart, from each of `starts` (N,) on: (N, T, 15, 3), (N, T, 15).

    `at` gives the poses at any times, as `Clip.at` does.
    """
    joints, visible = at((starts[:, None] + np.arange(frames) * step).ravel())
    shape = len(starts), frames
    return joints.reshape(*shape, *joints.shape[1:]), visible.reshape(*shape, *visible.shape[1:])


Source = tuple[Path, str]
"""A clip's file and the hash of its content."""


@dataclass(frozen=True, slots=True)
class SupportSet:
    """What is normal: G categories, and the transitions between P pairs of them (`transitions`: (P, 2) numbers).

    The M = G + P groups, categories first, have features (M, K, D) of unit rows with mask (M, K); limit (M,), the
    distance where the score is 1; and `usual` (M,), the score expected of normal windows of a person who is not in the
    support (empty: not known). `clips` names each category's files; `origin` (M, K) says which of them each row of
    `features` was cut from. `shots` counts each category's clips; `problems` says what is wrong with the folder.
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
    transitions: NDArray[np.intp] = field(default_factory=lambda: NO_TRANSITIONS)

    def moved(self, factors: NDArray[np.float64]) -> SupportSet:
        """Scale each category's limit by its factor (G,), and a transition's by the geometric mean of its two.

        For a shift in where normal windows lie: the scores expected of them stay the same.
        """
        between = np.sqrt(factors[self.transitions].prod(1))
        return changed(self, limit=self.limit * np.append(factors, between))

    def widened(self, factor: float) -> SupportSet:
        """Widen all margins by a factor: every score falls by that factor, and so do the expected scores."""
        return changed(self, limit=self.limit * factor, usual=self.usual / factor)

    def nearest_clip(self, embedding: Float, category: int) -> str:
        """The category's file whose windows come nearest to an embedding (D,); empty if the files are not known."""
        if not self.clips:
            return ""
        near = np.where(self.mask[category] > 0, self.features[category] @ embedding, -2)
        return self.clips[category][int(self.origin[category, near.argmax()])]

    @property
    def summary(self) -> str:
        """The categories, each with its number of clips, as text."""
        return ", ".join(f"{name} ({shots})" for name, shots in zip(self.names, self.shots, strict=True))


def load_support(
    root: Path | str,
    bundle: Bundle,
    engine: Engine,
    cache: FeatureCache,
    *,
    refined: bool = True,
    transitions: TransitionPlan = TransitionPlan(),  # frozen
) -> SupportSet:
    """Load and embed a support folder. Clips that cannot be read are left out and named in `problems`.

    The folder's calibration, if it has one, adjusts the limits unless `refined` is false. `transitions` says which
    changes from one category to another are normal. Raises SupportError when no category is left.
    """
    with reading(Path(root)):
        return _load(Path(root), bundle, engine, cache, refined, transitions)


def _load(
    root: Path, bundle: Bundle, engine: Engine, cache: FeatureCache, refined: bool, transitions: TransitionPlan
) -> SupportSet:
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
    sources: list[list[Source]] = []
    posture: list[Float] = []
    version = hashlib.sha256()
    m = bundle.manifest
    for name, files in folders.items():
        clips: list[Float] = []
        mine: list[Source] = []
        stands = NONE
        for path in files:
            try:
                data = clip_bytes(path)
                digest = hashlib.sha256(data).hexdigest()
                key = f"{_kind(bundle, RULE)}-{digest[:32]}"
                # Embed the same bytes that were hashed: the file may change in between.
                make = partial(_embed_clip, data, str(path), bundle, engine)
                features_of = cache.get(key, m.embedding, make)
                look = partial(_posture, data, str(path))
                stands = stands + cache.get(f"p{POSTURE_RULE}-{digest[:32]}", len(stands), look)[0]
                if len(features_of) <= 2:
                    problems.append(f"{path}: shorter than {2 * PHASE_S:g} s, which is too short to show an action")
                clips.append(features_of)
                mine.append((path, digest))
                version.update(os.fsencode(name) + f"/{digest}\n".encode())
            except ClipError as e:
                problems.append(f"left out of the support: {e}")
        if clips:
            names.append(os.fsencode(name).decode(errors="replace"))
            features.append(clips)
            used.append(tuple(os.fsencode(path.name).decode(errors="replace") for path, _ in mine))
            sources.append(mine)
            posture.append(stands)
        else:
            problems.append(f"category '{name}' has no usable clip and is not part of the support")
    if not names:
        raise SupportError(
            f"{root}: no usable clip in any category",
            why="; ".join(problems)[:600],
            fix="correct these files or add others; docs/start.md, 'Clip files', describes the format",
        )
    fair = [[_thin(c, MAX_WINDOWS // len(clips)) for c in clips] for clips in features]
    groups = [_thin(np.concatenate(clips), MAX_WINDOWS) for clips in fair]
    rows, short = chosen(transitions, names, np.stack([g.mean(0) for g in groups]))
    between, features_between = [], _TransitionFeatures(bundle, engine, cache)
    try:
        pairs = [paired(sources[g], sources[h]) if g != h else repeated(sources[g]) for g, h in rows.tolist()]
        between = [[features_between(a, b) for a, b in pair] for pair in pairs]
        version.update(f"{TRANSITION_RULE}{rows.tolist()}".encode() if len(rows) else b"")
    except ClipError as e:
        rows, short = NO_TRANSITIONS, [f"changes between categories are not known until the folder is read again: {e}"]
    packed, mask = _pack(groups + [np.concatenate(t) for t in between])
    origin = np.zeros(mask.shape, np.intp)
    for row, clips in zip(origin, fair, strict=False):
        source = _thin(np.repeat(np.arange(len(clips)), [len(c) for c in clips]), MAX_WINDOWS)
        row[: len(source)] = source
    calibration = bundle.calibration()
    there = read_refined(root, names, bundle.model) if refined else FolderCalibration(np.ones(len(names)))
    version.update(there.text)
    problems += there.problems + short + single_clips(names, features, calibration)
    for name, why in faults(dict(zip(names, posture, strict=True))):
        problems.append((f"category '{name}'" if name else "support") + f": {why} → {SEE}")
    level = np.array([level_of(clips, calibration, m.temperature) for clips in features + between])
    margin = np.array([margin_of(len(clips), calibration) for clips in features + between])
    found = SupportSet(
        tuple(names),
        packed,
        mask,
        level * margin,
        tuple(len(c) for c in features),
        version.hexdigest()[:12],
        tuple(problems),
        1 / margin,
        tuple(used),
        origin,
        rows,
    )
    return found.moved(there.levels).widened(there.threshold)


class _TransitionFeatures:
    """Features of the change from one clip to another, from the cache or by the engine."""

    def __init__(self, bundle: Bundle, engine: Engine, cache: FeatureCache) -> None:
        self._bundle, self._engine, self._cache = bundle, engine, cache
        self._clip = lru_cache(maxsize=64)(_as_hashed)

    def __call__(self, a: Source, b: Source) -> Float:
        """The features (N, D) of the transition between two clips. Raises ClipError if a file was changed since."""
        key = f"{_kind(self._bundle, 't' + TRANSITION_RULE)}-{a[1][:32]}-{b[1][:32]}"
        return self._cache.get(key, self._bundle.manifest.embedding, partial(self._make, a, b))

    def _make(self, a: Source, b: Source) -> Float:
        m = self._bundle.manifest
        return embed(self._engine, *transition_windows(self._clip(*a), self._clip(*b), m.frames, m.seconds))


def _kind(bundle: Bundle, rule: str) -> str:
    """The prefix of a feature's cache key: what the feature depends on beside the clips."""
    m = bundle.manifest
    return f"{m.encoder[:16]}-{rule}-{m.frames}x{m.seconds:g}"


def _as_hashed(path: Path, digest: str) -> Clip:
    """The clip in a file, if its content still has this hash. Raises ClipError otherwise."""
    data = clip_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ClipError(f"{path}: was changed while the folder was read")
    return parse_clip(data, str(path))


def single_clips(names: list[str], features: list[list[Float]], calibration: Mapping[str, NDArray[Any]]) -> list[str]:
    """Warnings about categories with a single clip: how uncertain their limits are."""
    out = []
    for name, clips in zip(names, features, strict=True):
        if len(clips) == 1:
            sure = ""
            if "error" in calibration:
                several, one = np.exp(np.asarray(calibration["error"], float))
                sure = f": off by a factor of {one:.1f} in one case of three, {several:.1f} with several"
            out.append(f"category '{name}' has one clip, so its limit is a guess{sure}; add clips")
    return out


@dataclass(frozen=True, slots=True)
class FolderCalibration:
    """What a folder's calibration.json says: factors (G,) on the levels and one on all margins.

    `text` is the file's bytes, `problems` says why it is not used.
    """

    levels: NDArray[np.float64]
    threshold: float = 1.0
    text: bytes = b""
    problems: list[str] = field(default_factory=list)


def read_refined(root: Path, names: list[str], model: str) -> FolderCalibration:
    """Read the folder's calibration.json; factors of 1 if there is none, or if it cannot be used."""
    path, none = root / REFINED, np.ones(len(names))
    try:
        data = content(path)
    except FileNotFoundError:
        return FolderCalibration(none)
    except OSError as e:
        return FolderCalibration(none, problems=[f"{path}: not used: cannot be read ({e.strerror})"])
    again = "run haad-edge calibrate again, or delete the file; until then the bundle's own limits apply"
    try:
        found = json.loads(data)
        version, made_by = found["version"], found["model"]
        threshold = float(found["threshold"])
        levels = np.array([float(found["levels"].get(n, 1.0)) for n in names])
        if version != REFINED_VERSION or made_by != model:
            return FolderCalibration(
                none, problems=[f"{path}: not used: made for {made_by}, version {version} → {again}"]
            )
        factors = np.append(levels, threshold)
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise ValueError("a factor is not a positive number")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        return FolderCalibration(none, problems=[f"{path}: not used: not a calibration: {e} → {again}"])
    return FolderCalibration(levels, threshold, data)


def _embed_clip(data: bytes, where: str, bundle: Bundle, engine: Engine) -> Float:
    clip = parse_clip(data, where)
    return embed(engine, *clip_windows(clip, bundle.manifest.frames, bundle.manifest.seconds))


def _posture(data: bytes, where: str) -> Float:
    return clip_cues(parse_clip(data, where))


def _thin(rows: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` of the rows, but at least one, evenly spread."""
    if len(rows) <= max(1, most):
        return rows
    thinned: NDArray[Any] = rows[np.linspace(0, len(rows) - 1, max(1, most)).round().astype(int)]
    return thinned


def _pack(features: list[Float]) -> tuple[Float, Float]:
    """Pad features to a common K, a multiple of 8; returns them and the mask."""
    k = -(-max(len(f) for f in features) // 8) * 8
    packed = np.zeros((len(features), k, features[0].shape[1]), np.float32)
    mask = np.zeros((len(features), k), np.float32)
    for g, f in enumerate(features):
        packed[g, : len(f)] = f
        mask[g, : len(f)] = 1
    return packed, mask
