"""Plays clips as a camera would deliver them: people, frames, time stamps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.clip import Clip, blend, ground, load_clip, natural
from edge.errors import ClipError
from edge.grid import SECOND
from edge.skeleton import Float

BLEND_S = 0.4
LEAST_S = 4.0
"""A clip is looped to at least this length by default: shorter than a window it would not be judged at all."""
APART_M = 1.5


def find_clips(paths: Sequence[Path]) -> list[Path]:
    """The files as given, and the .npz files below folders but not in hidden ones, in natural order.

    Raises ClipError if there are none.
    """
    found: list[Path] = []
    for path in paths:
        below = [p for p in path.rglob("*.npz") if not any(n[0] == "." for n in p.relative_to(path).parts)]
        found += sorted(below, key=lambda p: natural(str(p))) if path.is_dir() else [path]
    if not found:
        raise ClipError(f"{', '.join(map(str, paths))}: no .npz clip found")
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """A clip on a person's time axis: starts at `start`, lasts `seconds`, shifted in space by `offset` (3,)."""

    clip: Clip
    start: float
    seconds: float
    offset: Float


class Person:
    """Plays clips one after the other as one track, each placed where the last one ended and blended with it."""

    def __init__(self, clips: Sequence[Clip], seconds: float | None, at: Float | None = None) -> None:
        self.parts: list[Part] = []
        start, place = 0.0, np.zeros(3, np.float32) if at is None else at
        for clip in clips:
            lasts = seconds or max(clip.seconds, LEAST_S)
            offset = place if not self.parts else self._end() - ground(*clip.looped(np.zeros(1)))
            self.parts.append(Part(clip, start, lasts, offset))
            start += lasts
        self.seconds = start

    def _end(self) -> Float:
        p = self.parts[-1]
        return ground(*p.clip.looped(np.array([p.seconds]))) + p.offset

    def at(self, t: float) -> tuple[Float, Float]:
        """The pose at `t` seconds: joints (15, 3), visible (15,)."""
        i = max(k for k, p in enumerate(self.parts) if p.start <= t)
        joints, visible = self._pose(i, t)
        since = t - self.parts[i].start
        if i and since < BLEND_S:
            before = self._pose(i - 1, t)
            joints, visible = blend(before[0], before[1], joints, visible, np.full((1, 1), since / BLEND_S, np.float32))
        return joints[0], visible[0]

    def _pose(self, i: int, t: float) -> tuple[Float, Float]:
        p = self.parts[i]
        joints, visible = p.clip.looped(np.array([t - p.start]))
        return joints + p.offset, visible


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """One camera frame: capture time in seconds from the start, ids (P,), joints (P, 15, 3), visible (P, 15)."""

    t: float
    ids: list[int]
    joints: Float
    visible: Float


def play(
    paths: Sequence[Path], *, fps: float | None, people: int = 1, seconds: float | None = None, as_one: bool = False
) -> Iterator[CameraFrame]:
    """Yield the frames of a camera that sees `people` people at a time.

    Each clip is a new track, in the order of `paths`, and clip k has track id k. With `as_one` each person plays all
    clips as one track, and person p begins with clip p. `seconds` is how long each clip is played, looped if necessary.
    Without `fps` it is the first clip's own. All clips are read before this returns. Raises ClipError.
    """
    clips = [load_clip(p) for p in paths]
    return _frames(clips, fps, people, seconds, as_one)


def _frames(
    clips: list[Clip], fps: float | None, people: int, seconds: float | None, as_one: bool
) -> Iterator[CameraFrame]:
    step = 1 / (fps or clips[0].fps)

    def place(k: int) -> Float:
        return np.array([k % people * APART_M, 0, 0], np.float32)

    if as_one:
        cast = [
            [(p, Person(clips[p % len(clips) :] + clips[: p % len(clips)], seconds, place(p)))] for p in range(people)
        ]
    else:
        cast = [
            [(k, Person([clips[k]], seconds, place(k))) for k in range(p, len(clips), people)] for p in range(people)
        ]
    ends = [np.cumsum([person.seconds for _, person in row]) for row in cast]
    frame = 0
    while True:
        t = frame * step
        seen: list[tuple[int, tuple[Float, Float]]] = []
        for row, end in zip(cast, ends, strict=True):
            k = int(np.searchsorted(end, t + 1e-9, side="right"))
            if k < len(row):
                track, person = row[k]
                seen.append((track, person.at(max(0.0, t - float(end[k - 1])) if k else t)))
        if not seen:
            return
        yield CameraFrame(t, [i for i, _ in seen], np.stack([p[0] for _, p in seen]), np.stack([p[1] for _, p in seen]))
        frame += 1


def paced(
    frames: Iterator[CameraFrame],
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[CameraFrame]:
    """Yield the same frames, each when it is due; `speed` 2 is twice as fast, 0 as fast as possible."""
    start = clock()
    for frame in frames:
        if speed > 0 and (wait := start + frame.t / speed - clock()) > 0:
            sleep(wait)
        yield frame


def capture_ns(start_ns: int, frame: CameraFrame) -> int:
    """The frame's capture time in ns, as it would be at normal speed."""
    return start_ns + round(frame.t * SECOND)
