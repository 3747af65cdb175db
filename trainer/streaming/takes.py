"""Assembles long streams from clips of real people, with known anomalies, for `evaluate --streaming` to watch.

    clips of one person ─► parts: one normal clip after another, now and then one of another category
                                  └─► blended at the seams ─► camera (rate, faults) ─► Take: frames and truth

A take begins with a stretch of uninterrupted normal activity, to count false alarms; then anomalies come, each followed
by a pause of normal activity, to see what is found and how soon. Everything is determined by the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip, blend, ground
from edge.skeleton import Float
from trainer.datasets import ClipSet

Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How takes are assembled; times in seconds. Pairs of numbers are ranges, from which values are drawn uniformly.

    `faults` adds those of cameras: a rate that changes between 12 and 30 fps, frames lost one by one and in bursts of
    less than half a second, noise of up to 2 cm on every joint, limbs hidden for up to 2 s.
    """

    clean: float = 120.0
    anomalies: int = 26
    pause: tuple[float, float] = (6.0, 10.0)
    length: tuple[float, float] = (1.5, 4.0)
    short: tuple[float, float] = (0.7, 1.4)
    short_share: float = 0.2
    seam: tuple[float, float] = (0.2, 0.5)
    speed: float = 0.1
    fps: float = 30.0
    faults: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """One anomaly, in seconds: from the middle of the seam at its beginning to the middle of the seam at its end.

    Between these the pose is more the anomaly's than that of the clip before or after.
    """

    start: float
    end: float
    category: str


@dataclass(frozen=True, slots=True)
class Take:
    """One person in front of one camera: time (N,) in seconds, joints (N, 15, 3), visible (N, 15), and the truth.

    `clean`: the seconds at the beginning without anomalies. Frames that the camera lost are missing.
    """

    person: str
    normal: tuple[str, ...]
    time: NDArray[np.float64]
    joints: Float
    visible: Float
    spans: tuple[Span, ...]
    clean: float

    @property
    def seconds(self) -> float:
        return float(self.time[-1])


@dataclass(slots=True)
class _Part:
    """A clip on the take's time axis: at `start`, played at `speed`, beginning `phase` seconds into the clip."""

    clip: Clip
    start: float
    seconds: float
    speed: float
    phase: float
    seam: float
    category: str
    normal: bool
    offset: Float = field(default_factory=lambda: np.zeros(3, np.float32))

    def at(self, times: NDArray[np.float64]) -> tuple[Float, Float]:
        """Poses at times of the take: the clip is looped within the part; after the part's end the last pose holds."""
        inside = np.minimum(times - self.start, self.seconds)
        j, v = self.clip.looped(self.phase + inside * self.speed)
        return np.where(v[..., None] > 0, j + self.offset, j), v


def make_takes(clips: ClipSet, judged: Bool, plan: StreamPlan, *, normals: int = 1, seed: int = 0) -> Iterator[Take]:
    """Make a take for each judged person and each of their categories as the normal one.

    With `normals` > 1, further categories are normal too, up to that number. A take is left out if no category would
    remain for the anomalies.
    """
    people = sorted(set(clips.subjects[judged].tolist()))
    for person in people:
        own = judged & (clips.subjects == person)
        there = [g for g in range(len(clips.names)) if (own & (clips.label == g)).any()]
        for g in there:
            rng = np.random.default_rng((seed, g, int.from_bytes(person.encode()[:7], "big")))
            chosen = [g, *rng.permutation([x for x in there if x != g])[: normals - 1].tolist()]
            if len(chosen) < len(there):
                yield _take(clips, own, chosen, plan, rng, person)


def _take(
    clips: ClipSet, own: Bool, normal: list[int], plan: StreamPlan, rng: np.random.Generator, person: str
) -> Take:
    members = {g: np.flatnonzero(own & (clips.label == g)) for g in set(clips.label[own].tolist())}
    others = [g for g in sorted(members) if g not in normal]
    parts: list[_Part] = []
    end = _fill(parts, clips, members, normal, plan, rng, 0.0, plan.clean)
    clean = end
    order: list[int] = []
    for _ in range(plan.anomalies):
        order = order or rng.permutation(others).tolist()
        g = order.pop()
        clip = clips.clips[rng.choice(members[g])]
        brief = rng.random() < plan.short_share
        seconds = rng.uniform(*(plan.short if brief else plan.length))
        # A short anomaly is a piece from the middle of the action; a long one starts at its beginning, and loops.
        phase = max(0.0, (clip.seconds - seconds) / 2) if brief else 0.0
        parts.append(
            _Part(clip, end, seconds, _speed(plan, rng), phase, rng.uniform(*plan.seam), clips.names[g], False)
        )
        end = _fill(parts, clips, members, normal, plan, rng, end + seconds, rng.uniform(*plan.pause))
    spans = tuple(
        Span(p.start + p.seam / 2, q.start + q.seam / 2, p.category) for p, q in pairwise(parts) if not p.normal
    )
    time, joints, visible = _camera(parts, end, plan, rng)
    return Take(person, tuple(clips.names[g] for g in normal), time, joints, visible, spans, clean)


def _speed(plan: StreamPlan, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(-plan.speed, plan.speed)))


def _fill(
    parts: list[_Part],
    clips: ClipSet,
    members: dict[int, NDArray[np.intp]],
    normal: list[int],
    plan: StreamPlan,
    rng: np.random.Generator,
    start: float,
    seconds: float,
) -> float:
    """Append normal clips, each played once in whole, until `seconds` have passed; returns the time reached.

    Only the take's very first clip begins at a random phase. If several categories are normal, one of them goes on for
    some clips before the next one follows.
    """
    end, g, rounds = start, -1, 0
    while end < start + seconds:
        if not rounds:
            g, rounds = int(rng.choice([x for x in normal if x != g] or normal)), int(rng.integers(3, 9))
        rounds -= 1
        clip, speed = clips.clips[rng.choice(members[g])], _speed(plan, rng)
        phase = rng.uniform(0, clip.seconds) if not parts else 0.0
        lasts = max(0.2, (clip.seconds - phase) / speed)
        parts.append(_Part(clip, end, lasts, speed, phase, rng.uniform(*plan.seam), clips.names[g], True))
        end += lasts
    return end


def _camera(
    parts: Sequence[_Part], seconds: float, plan: StreamPlan, rng: np.random.Generator
) -> tuple[NDArray[np.float64], Float, Float]:
    """Render the frames: every part blended into the next one, and seen by a camera with the plan's faults."""
    time = _times(seconds, plan, rng)
    joints, visible = np.zeros((len(time), 15, 3), np.float32), np.zeros((len(time), 15), np.float32)
    before: _Part | None = None
    for p, stop in zip(parts, [*(p.start for p in parts[1:]), seconds + 1], strict=True):
        if before is not None:
            there = before.at(np.array([p.start]))
            p.offset = ground(*there) - ground(*p.at(np.array([p.start])))
        i = slice(*np.searchsorted(time, [p.start, stop]))
        j, v = p.at(time[i])
        if before is not None:
            share = np.clip((time[i] - p.start) / p.seam, 0, 1).astype(np.float32)
            n = int((share < 1).sum())
            j[:n], v[:n] = blend(*before.at(time[i][:n]), j[:n], v[:n], share[:n, None])
        joints[i], visible[i] = j, v
        before = p
    if plan.faults:
        joints, visible = _disturb(time, joints, visible, rng)
    return time, joints, visible


def _times(seconds: float, plan: StreamPlan, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the frames' times. With faults the rate changes every few seconds, and some frames never arrive."""
    if not plan.faults:
        return np.arange(0, seconds, 1 / plan.fps)
    steps: list[float] = []
    while sum(steps) < seconds:
        rate = rng.uniform(12, 30)
        steps += [1 / rate] * int(rate * rng.uniform(3, 15))
    time = np.cumsum(steps) - steps[0]
    time = time[time < seconds]
    lost = rng.random(len(time)) < 0.05
    for first in np.flatnonzero(rng.random(len(time)) < 0.002):
        lost |= (time >= time[first]) & (time < time[first] + rng.uniform(0.1, 0.4))
    lost[0] = False
    return time[~lost]


def _disturb(time: NDArray[np.float64], joints: Float, visible: Float, rng: np.random.Generator) -> tuple[Float, Float]:
    """Add noise to every joint, and hide limbs for a while."""
    joints = joints + rng.normal(size=joints.shape).astype(np.float32) * rng.uniform(0, 0.02)
    visible = visible.copy()
    limbs = ((4, 5), (7, 8), (10, 11), (13, 14), (10, 11, 13, 14))
    for start in np.arange(0, time[-1], 12.0):
        begin = start + rng.uniform(0, 10)
        hidden = (time >= begin) & (time < begin + rng.uniform(0.5, 2.0))
        visible[np.ix_(hidden, limbs[rng.integers(len(limbs))])] = 0
    return np.where(visible[..., None] > 0, joints, 0).astype(np.float32), visible
