"""Implements the programs that people would write instead, from messages to distances of windows.

plain    zmq.asyncio, a deque per person, np.stack, the encoder in torch eager for each window
batched  the same, with windows collected into batches of 64 or 20 ms
bytewax  bytewax's sliding windows, and the ONNX graph that haad-edge runs, in batches of 64 or 20 ms

All read the same messages on one thread, cut the same windows (every stride, 2 s on a grid of 48 rows that begins with
a person's first frame) and give the same distances; a test checks that they equal the engine's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import msgpack
import numpy as np
import zmq
import zmq.asyncio

from edge.clip import blend
from edge.skeleton import get_layout

SECOND = 10**9
ROWS, WINDOW_NS, BATCH, WAIT_S = 48, 2 * SECOND, 64, 0.02
MAX_GAP_NS = SECOND // 2
MATRIX = get_layout("coco17").matrix.T
Window = tuple[tuple[str, int, int], np.ndarray, np.ndarray]
"""(stream, track, end in ns), joints (48, 15, 3), visible (48, 15)."""
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""joints (n, 48, 15, 3), visible (n, 48, 15) → distance (n, G)."""


@dataclass
class Tally:
    """Counts what a peer did, from its first window on, and decides when it stops: after `seconds`, or `messages`."""

    seconds: float
    messages: int | None = None
    keep: bool = False
    read: int = 0
    people: int = 0
    windows: int = 0
    since: tuple[float, float, int, int] | None = None
    result: dict[str, float] = field(default_factory=dict)
    found: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)

    def scored(self, windows: list[Window], distance: np.ndarray | None) -> None:
        self.windows += len(windows)
        if self.since is None:
            self.since = time.perf_counter(), time.process_time(), self.people, self.windows
        if self.keep and distance is not None:
            self.found |= {w[0]: d for w, d in zip(windows, distance, strict=True)}

    def done(self) -> bool:
        if self.messages is not None:
            return self.read >= self.messages
        if self.since is None or time.perf_counter() - self.since[0] < self.seconds:
            return False
        wall, cpu_, people, windows = self.since
        self.result = {
            "windows_s": (self.windows - windows) / (time.perf_counter() - wall),
            "cpu_person_frames_s": (self.people - people) / (time.process_time() - cpu_),
        }
        return True


def read(message: bytes) -> tuple[str, int, list[int], np.ndarray, np.ndarray]:
    """Decode a message of coco17 in pixels: stream, t, ids, joints (P, 15, 3) with y up, visible (P, 15)."""
    topic, _, body = message.partition(b"\0")
    m = msgpack.unpackb(body)
    people = len(m["ids"])
    pixels = np.frombuffer(m["joints"], np.float32).reshape(people, 17, 2)
    seen = (np.frombuffer(m["visible"], np.float32).reshape(people, 17) >= 0.3).astype(np.float32)
    height = m["size"][1]
    joints = np.zeros((people, 17, 3), np.float32)
    joints[..., 0], joints[..., 1] = pixels[..., 0] / height, 1 - pixels[..., 1] / height
    weight = seen @ MATRIX
    total = np.swapaxes(np.swapaxes(joints * seen[..., None], 1, 2) @ MATRIX, 1, 2)
    enough = weight > 0.5
    core = np.where(enough[..., None], total / np.where(enough, weight, 1)[..., None], 0).astype(np.float32)
    return topic[5:].decode(), m["t"], m["ids"], core, weight * enough


def cut(times: np.ndarray, joints: np.ndarray, visible: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample frames (F,) at the times of the rows."""
    high = np.clip(np.searchsorted(times, rows), 1, len(times) - 1)
    low = high - 1
    f = ((rows - times[low]) / (times[high] - times[low])).astype(np.float32)[:, None]
    return blend(joints[low], visible[low], joints[high], visible[high], f)


class People:
    """Keeps a deque of frames for each person; `add` returns the windows that a frame completes."""

    def __init__(self, stride: float) -> None:
        self.stride = round(stride * ROWS * SECOND / WINDOW_NS)
        self.frames: dict[tuple[str, int], deque[tuple[int, np.ndarray, np.ndarray]]] = {}
        self.first: dict[tuple[str, int], int] = {}
        self.due: dict[tuple[str, int], int] = {}
        self.swept = 0

    def add(self, stream: str, t: int, track: int, joints: np.ndarray, visible: np.ndarray) -> list[Window]:
        key = stream, track
        frames = self.frames.get(key)
        if frames is None or t - frames[-1][0] > MAX_GAP_NS:
            frames = self.frames[key] = deque()
            self.first[key], self.due[key] = t, ROWS - 1
        elif t <= frames[-1][0]:
            return []
        frames.append((t, joints, visible))
        out: list[Window] = []
        while t >= (end := self.first[key] + self.due[key] * WINDOW_NS // ROWS):
            rows = self.first[key] + np.arange(self.due[key] - ROWS + 1, self.due[key] + 1) * WINDOW_NS // ROWS
            while frames[1][0] <= rows[0]:
                frames.popleft()
            times = np.array([f[0] for f in frames])
            window = cut(times, np.stack([f[1] for f in frames]), np.stack([f[2] for f in frames]), rows)
            out.append(((stream, track, end), *window))
            self.due[key] += self.stride
        return out

    def forget(self, now: int) -> None:
        """Once a second, forget people unseen for two seconds."""
        if now - self.swept > SECOND:
            self.swept = now
            for key in [k for k, frames in self.frames.items() if now - frames[-1][0] > 2 * SECOND]:
                del self.frames[key], self.first[key], self.due[key]


def by_hand(address: str, tally: Tally, stride: float, score: Score | None, batch: int) -> None:
    """Run the peers `plain` (batch 1) and `batched`."""

    async def serve() -> None:
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.PULL)
        socket.set_hwm(10_000)
        socket.bind(address)
        people, waiting, oldest = People(stride), [], 0.0
        try:
            while not tally.done():
                message = await socket.recv()
                stream, t, ids, joints, visible = read(message)
                tally.read += 1
                tally.people += len(ids)
                for track, j, v in zip(ids, joints, visible, strict=True):
                    if windows := people.add(stream, t, track, j, v):
                        oldest = oldest if waiting else time.monotonic()
                        waiting += windows
                people.forget(t)
                last = tally.messages is not None and tally.read == tally.messages
                while waiting and (len(waiting) >= batch or last or time.monotonic() - oldest > WAIT_S):
                    ready, waiting = waiting[:batch], waiting[batch:]
                    stacked = np.stack([w[1] for w in ready]), np.stack([w[2] for w in ready])
                    tally.scored(ready, score(*stacked) if score else None)
        finally:
            socket.close(0)
            context.term()

    asyncio.run(serve())


def with_bytewax(address: str, tally: Tally, stride: float, score: Score | None, batch: int) -> None:
    """Run the peer `bytewax`: a person's times count from their first frame, so that windows equal the others'."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import DynamicSource, StatelessSourcePartition
    from bytewax.operators.windowing import EventClock, SlidingWindower, collect_window
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import run_main

    epoch = datetime(2000, 1, 1, tzinfo=timezone.utc)
    every = timedelta(seconds=stride)
    step = round(stride * ROWS * SECOND / WINDOW_NS)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    first: dict[str, int] = {}

    class Poses(StatelessSourcePartition[bytes]):
        def __init__(self) -> None:
            self.socket = context.socket(zmq.PULL)
            self.socket.set_hwm(10_000)
            self.socket.bind(address)

        def next_batch(self) -> list[bytes]:
            if tally.done():
                raise StopIteration
            out: list[bytes] = []
            if self.socket.poll(10):
                try:
                    while len(out) < 256:
                        out.append(self.socket.recv(zmq.NOBLOCK))
                except zmq.Again:
                    pass
            tally.read += len(out)
            return out

        def close(self) -> None:
            self.socket.close(0)

    class Source(DynamicSource[bytes]):
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Poses:
            return Poses()

    class Counting(StatelessSinkPartition[Any]):
        def write_batch(self, items: list[Any]) -> None:
            for windows, distance in items:
                tally.scored(windows, distance)

    class Sink(DynamicSink[Any]):
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Counting:
            return Counting()

    def frames(message: bytes) -> list[tuple[str, tuple[datetime, int, np.ndarray, np.ndarray]]]:
        stream, t, ids, joints, visible = read(message)
        tally.people += len(ids)
        out = []
        for track, j, v in zip(ids, joints, visible, strict=True):
            key = f"{stream}|{track}"
            since = t - first.setdefault(key, t)
            out.append((key, (epoch + timedelta(microseconds=since // 1000), t, j, v)))
        return out

    def window(item: tuple[str, tuple[int, list[tuple[datetime, int, np.ndarray, np.ndarray]]]]) -> Window | None:
        key, (number, values) = item
        t0 = first[key]
        rows = t0 + (np.arange(ROWS) + number * step) * WINDOW_NS // ROWS
        times = np.array([v[1] for v in values])
        if number < 0 or len(times) < 2 or times[0] > rows[0] or times[-1] < rows[-1]:
            return None
        stream, _, track = key.partition("|")
        stacked = np.stack([v[2] for v in values]), np.stack([v[3] for v in values])
        return (stream, int(track), int(rows[-1])), *cut(times, *stacked, rows)

    def judge(item: tuple[str, list[Window]]) -> tuple[list[Window], np.ndarray | None]:
        joints, visible = np.stack([w[1] for w in item[1]]), np.stack([w[2] for w in item[1]])
        return item[1], score(joints, visible) if score else None

    flow = Dataflow("poses")
    poses = op.input("poses", flow, Source())
    people = op.flat_map("read", poses, frames)
    # The clock's own time stands still, so that the speed of the replay does not decide what is late. A window includes
    # a stride before and a stride after its rows, for the frames from which these are interpolated.
    clock = EventClock(lambda v: v[0], timedelta(0), now_getter=lambda: epoch)
    windower = SlidingWindower(timedelta(seconds=2) + 2 * every, every, epoch - every)
    cuts = op.filter_map("cut", collect_window("window", people, clock, windower).down, window)
    batches = op.collect("batch", op.key_on("all", cuts, lambda _: "all"), timedelta(seconds=WAIT_S), batch)
    op.output("out", op.map("judge", batches, judge), Sink())
    run_main(flow)
    context.term()
