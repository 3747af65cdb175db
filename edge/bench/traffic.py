"""Simulates what a site's cameras send: people come and go, are hidden at times, and jitter. Seeded.

    demo clips ─► visits (who, when, where, doing what) ─► Trace: a round of prepared message bodies
                                                             │ seq, t and ids are written in place
    Camera(name, trace, phase, its own rate) ─► messages ────┘

A round is circular: whoever is in view at its end is still in view at its beginning, under the same id, so it can be
repeated for ever. Those who arrive in the next round are new people.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip, load_clip
from edge.commands.demo import CLIPS, NORMAL
from edge.grid import SECOND
from edge.skeleton import CORE15, Float, get_layout
from edge.wire import PoseFrame, encode_pose

FIRST = 1 << 16
"""The first `seq` and track id. From here on msgpack gives them five bytes, so they can be overwritten in place."""
ROUND_S = 24.0
EPOCH = 1_700_000_000 * SECOND
"""Capture time of a recording's start."""
SIZE = (1920, 1080)
PIXELS_A_METRE = 180.0
JITTER_PX = 2.0
FALLS = 0.04
"""Share of the visits in which the person falls."""
UNSEEN_S = 0.25
"""How long a tracker misses a person whom it loses, before it finds them under the same id."""
HIDDEN = (("ankle",), ("l_elbow", "l_wrist"), ("r_elbow", "r_wrist"), ("l_knee", "l_ankle"), ("r_knee", "r_ankle"))
"""Joints whose names contain one of a row's words are hidden together."""


@dataclass(frozen=True, slots=True)
class Load:
    """Cameras × people in view × frames a second. `passers`: share of the time in which one more person passes by."""

    cameras: int = 64
    people: int = 4
    fps: float = 30.0
    passers: float = 0.5
    seed: int = 0
    stay: float = 60.0
    """Mean seconds that a person stays in view; the next one follows at once."""

    @property
    def messages(self) -> float:
        """Messages a second from all cameras."""
        return self.cameras * self.fps


@dataclass(frozen=True, slots=True)
class Visit:
    """Person number `who` in view from frame `start` of a round for `frames` frames, maybe into the next round."""

    who: int
    start: int
    frames: int


def visits(load: Load, frames: int, rng: np.random.Generator) -> list[Visit]:
    """The visits of a round of `frames` frames. Where a person stays longer than a round, nobody else ever comes."""
    found: list[Visit] = []

    def come(start: int, length: int) -> None:
        if length > 1:
            found.append(Visit(len(found), start, length))

    for _ in range(load.people):
        # Cut the circle at random places, as often as people would leave in a round.
        cuts = np.sort(rng.integers(0, frames, rng.poisson(frames / load.fps / load.stay)))
        for start, end in zip(cuts, [*cuts[1:], cuts[0] + frames] if len(cuts) else [], strict=True):
            come(int(start), int(end - start))
        if not len(cuts):
            come(0, frames)
    if load.passers > 0:
        length = round(frames * load.passers / 2)
        for half in range(2):
            come(half * frames // 2 + int(rng.integers(0, frames // 4 + 1)), min(length, frames // 2))
    return found


@lru_cache(maxsize=1)
def _clips() -> dict[str, Clip]:
    return {p.stem: load_clip(p) for p in sorted((CLIPS / "played").glob("*.npz"))}


@lru_cache(maxsize=1)
def _columns() -> NDArray[np.intp]:
    """The index in core15 of each joint of coco17. Eyes, ears and nose take that of the head."""
    return np.array([CORE15.index(n if n in CORE15 else "head") for n in get_layout("coco17").joints])


def perform(
    frames: int, fps: float, rng: np.random.Generator, motion: str | None = None, *, faults: bool = True
) -> tuple[Float, Float]:
    """Simulate a tracker's view of a person: keypoints (F, 17, 2) in pixels, y down; confidence (F, 17), 0 if unseen.

    `motion` None: a normal one at random, or now and then a fall. Without `faults` the whole person is always seen.
    """
    layout = get_layout("coco17")
    motion = motion or ("fall" if rng.random() < FALLS else NORMAL[rng.integers(len(NORMAL))])
    clip = _clips()[motion]
    time = np.arange(frames) / fps * rng.uniform(0.9, 1.1) + rng.uniform(0, clip.seconds)
    joints, _ = clip.looped(time) if motion != "fall" else clip.at(time % clip.seconds)
    yaw = rng.uniform(-np.pi / 3, np.pi / 3)
    scale = PIXELS_A_METRE * rng.uniform(0.6, 1.2)
    body = joints - joints[:, :1] * (1, 0, 1)
    across = body[..., 0] * np.cos(yaw) + body[..., 2] * np.sin(yaw)
    place = rng.uniform(300, SIZE[0] - 300) + 200 * np.sin(np.arange(frames) / fps / 5)
    points = np.stack([across * scale + place[:, None], rng.uniform(850, 1000) - body[..., 1] * scale], -1)
    keypoints = points[:, _columns()] + rng.normal(0, JITTER_PX, (frames, layout.size, 2))
    confidence = rng.uniform(0.55, 0.95, (frames, layout.size))
    if not faults:
        return keypoints.astype(np.float32), confidence.astype(np.float32)
    for start, length in _episodes(frames, fps, every=12.0, lasting=1.5, rng=rng):
        words = HIDDEN[rng.integers(len(HIDDEN))]
        hidden = [i for i, n in enumerate(layout.joints) if any(w in n for w in words)]
        confidence[start : start + length, hidden] *= 0.3
    for start, length in _episodes(frames, fps, every=20.0, lasting=UNSEEN_S, rng=rng):
        confidence[start : start + length] = 0
    return keypoints.astype(np.float32), confidence.astype(np.float32)


def _episodes(
    frames: int, fps: float, *, every: float, lasting: float, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Random stretches (start, length) in frames: one per `every` s on average, of `lasting` s, away from both ends."""
    length = max(1, round(lasting * fps))
    if frames > 3 * length:
        for start in rng.integers(length, frames - 2 * length, rng.poisson(frames / fps / every)):
            yield int(start), length


@dataclass(slots=True)
class Body:
    """One frame's message without its topic, and the offsets of `seq`, `t` and the ids in it."""

    data: bytearray
    seq: int
    t: int
    ids: int
    rank: NDArray[np.int64]
    """For each person, how many came before them, counted across rounds; negative for people of the round before."""
    format: struct.Struct


class Trace:
    """A round of one camera's messages, complete except for `seq`, `t`, ids and topic."""

    def __init__(self, load: Load, seed: int, seconds: float = ROUND_S) -> None:
        rng = np.random.default_rng([load.seed, seed])
        self.load, self.frames = load, max(2, round(seconds * load.fps))
        cast = visits(load, self.frames, rng)
        self.people = len(cast)
        """How many people come in a round."""
        seen = [(v, *perform(v.frames, load.fps, rng)) for v in cast]
        alone = {v.who for v in cast if v.frames == self.frames and v.start == 0}
        self.bodies = [self._body(f, seen, alone) for f in range(self.frames)]

    def _body(self, frame: int, seen: list[tuple[Visit, Float, Float]], alone: set[int]) -> Body:
        ranks, joints, confidence = [], [], []
        for visit, keypoints, conf in seen:
            for rounds in (0, 1):
                k = frame - visit.start + rounds * self.frames
                if 0 <= k < visit.frames and conf[k].any():
                    # Someone who never leaves is the same person in every round.
                    ranks.append(-1 - FIRST - visit.who if visit.who in alone else visit.who - rounds * self.people)
                    joints.append(keypoints[k])
                    confidence.append(conf[k])
        layout = get_layout("coco17")
        ids = np.arange(len(ranks)) + FIRST
        shape = (-1, layout.size)
        places = np.array(joints, np.float32).reshape(*shape, 2)
        message = encode_pose(
            PoseFrame("", FIRST, 1 << 61, layout, ids, places, np.array(confidence, np.float32).reshape(shape), SIZE)
        )
        data = bytearray(message.partition(b"\0")[2])
        at = data.index(b"\xa3ids") + 4
        return Body(
            data,
            data.index(b"\xa3seq") + 5,
            data.index(b"\xa1t") + 3,
            at + (1 if len(ranks) < 16 else 3),
            np.array(ranks, np.int64),
            struct.Struct(">" + "BI" * len(ranks)),
        )


_SEQ, _TIME = struct.Struct(">I"), struct.Struct(">Q")


class Camera:
    """Plays a trace under a name, from frame `start` on, at a rate that `drift` makes slightly its own."""

    def __init__(self, name: str, trace: Trace, *, start: int = 0, phase: float = 0.0, drift: float = 0.0) -> None:
        self.name, self.trace, self.phase = name, trace, phase
        self.period = 1 / (trace.load.fps * (1 + drift))
        self.sent = 0
        self._topic = f"pose/{name}\0".encode()
        self._start = start

    def due(self, k: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds after the start at which frames number `k` are captured."""
        return np.asarray(self.phase + k * self.period)

    def next(self, t: int) -> bytes:
        """The next message, captured at `t` ns."""
        rounds, frame = divmod(self._start + self.sent, self.trace.frames)
        body = self.trace.bodies[frame]
        data, people = body.data, self.trace.people
        _SEQ.pack_into(data, body.seq, (FIRST + self.sent) & 0xFFFFFFFF)
        _TIME.pack_into(data, body.t, t)
        if len(body.rank):
            values: list[int] = []
            for rank in body.rank.tolist():
                values += (0xCE, 2 * FIRST + rank + rounds * people if rank > -FIRST else FIRST - 1 - FIRST - rank)
            body.format.pack_into(data, body.ids, *values)
        self.sent += 1
        return self._topic + data


def cameras(load: Load, *, traces: int = 16, seconds: float = ROUND_S) -> list[Camera]:
    """The cameras of a load. They share at most `traces` rounds, each from another frame on."""
    rng = np.random.default_rng([load.seed, 1 << 20])
    made = [Trace(load, k, seconds) for k in range(min(traces, load.cameras))]
    return [
        Camera(
            f"cam{c:05}",
            made[c % len(made)],
            start=int(rng.integers(made[0].frames)),
            phase=float(rng.uniform(0, 1 / load.fps)),
            drift=float(rng.uniform(-0.002, 0.002)),
        )
        for c in range(load.cameras)
    ]


def schedule(seen: list[Camera], seconds: float, first: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """When each camera captures, for `seconds` from `first` on: times (N,) in order, and camera indices (N,)."""
    times, who = [], []
    for c, camera in enumerate(seen):
        low, high = (int(np.ceil((s - camera.phase) / camera.period)) for s in (first, first + seconds))
        k = np.arange(max(0, low), max(0, high))
        times.append(camera.due(k))
        who.append(np.full(len(k), c))
    flat, order = np.concatenate(times), np.concatenate(who)
    at = np.argsort(flat, kind="stable")
    return flat[at], order[at]


def recorded(seen: list[Camera], seconds: float, first: float = 0.0, epoch: int = EPOCH) -> list[bytes]:
    """All messages of a stretch, in order, with their scheduled capture times; time 0 is `epoch` ns."""
    times, who = schedule(seen, seconds, first)
    stamps = (epoch + (times * SECOND).astype(np.int64)).tolist()
    return [seen[c].next(t) for c, t in zip(who.tolist(), stamps, strict=True)]
