"""In-memory ends for the loop: a source, a sink, a clock, and an engine behind the project's own seam."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.bundle import Bundle, open_bundle
from edge.engine import Engine, Staging, open_engine
from edge.errors import EngineError
from edge.events import Alert, Event, Scores, Status, decode_event
from edge.notices import Notices
from edge.runtime import Runtime
from edge.settings import Settings
from edge.skeleton import CORE15, Float, get_layout
from edge.support.enrol import SupportSet
from edge.wire import PoseFrame, encode_pose

SECOND = 10**9


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class MemorySource:
    """Hands out `queue` in chunks of at most `chunk` messages; waiting moves the clock instead of the world."""

    clock: FakeClock
    queue: list[list[bytes]] = field(default_factory=list)
    chunk: int = 10**9

    def receive(self, timeout: float) -> list[list[bytes]]:
        if not self.queue:
            self.clock.now += timeout
            return []
        out, self.queue = self.queue[: self.chunk], self.queue[self.chunk :]
        return out

    def close(self) -> None: ...


@dataclass
class MemorySink:
    """Keeps decoded events; everybody listens unless `deaf`."""

    events: list[Event] = field(default_factory=list)
    deaf: bool = False
    fresh: bool = False

    def send(self, message: bytes) -> None:
        self.events.append(decode_event([message]))

    def newcomers(self) -> bool:
        fresh, self.fresh = self.fresh, False
        return fresh

    def wanted(self, topic: bytes) -> bool:
        return not self.deaf

    def close(self) -> None: ...

    def alerts(self) -> list[Alert]:
        return [e for e in self.events if isinstance(e, Alert)]

    def scores(self) -> dict[tuple[str, int, int], float]:
        """(stream, track, end) → score."""
        return {
            (e.stream, t, end): s
            for e in self.events
            if isinstance(e, Scores)
            for t, end, s in zip(e.track, e.end, e.score, strict=True)
        }

    def states(self) -> list[str]:
        return [e.state for e in self.events if isinstance(e, Status)]


class AtOnce:
    """The part of `Engine` around a `run`: a batch is computed where it is submitted, and there is room for one."""

    name = "at once"
    fallbacks, categories = 0, None
    staging: Staging

    def run(self, n: int) -> tuple[Float, Float]:
        raise NotImplementedError

    def bind(self, support: Float, mask: Float) -> None: ...

    def admit(self, support: Float) -> None: ...

    def submit(self, n: int) -> None:
        self._done: list[Float] = [self.run(n)[1]]

    def collect(self) -> Float:
        return self._done.pop(0)

    @property
    def pending(self) -> int:
        return len(getattr(self, "_done", ()))

    @property
    def full(self) -> bool:
        return bool(self.pending)

    @property
    def ready(self) -> bool:
        return bool(self.pending)

    def close(self) -> None: ...


class HeightEngine(AtOnce):
    """Distance = how far the mean height of the visible joints is from `normal`, for every category."""

    name = "height-1"

    def __init__(self, size: int = 8, frames: int = 48, normal: float = 0.0) -> None:
        self.staging, self.normal = Staging.empty(size, frames), normal
        self.batches: list[int] = []
        self.bound: list[Float] = []
        self.broken = False

    def bind(self, support: Float, mask: Float) -> None:
        self.bound.append(support)
        self._categories = len(support)

    def run(self, n: int) -> tuple[Float, Float]:
        if self.broken:
            raise EngineError("the device is gone", why="a test said so")
        self.batches.append(n)
        v = self.staging.visible[:n]
        height = (self.staging.joints[:n, ..., 1] * v).sum((1, 2)) / np.maximum(v.sum((1, 2)), 1e-9)
        distance = np.abs(height - self.normal)[:, None].repeat(self._categories, 1).astype(np.float32)
        return np.zeros((n, 8), np.float32), distance


class LateEngine:
    """`inner`, two batches deep: a batch is computed when `ready` is asked and the dice say so, or in `collect`.

    Each of its two buffers is spoilt as soon as its batch has been collected and another may be staged there.
    """

    fallbacks, categories = 0, None

    def __init__(self, inner: HeightEngine, seed: int = 0, chance: float = 0.3) -> None:
        self.inner, self.name, self._dice, self._chance = inner, inner.name, random.Random(seed), chance
        size, frames = inner.staging.size, inner.staging.joints.shape[1]
        self._free = [Staging.empty(size, frames), Staging.empty(size, frames)]
        self._under: list[tuple[Staging, int]] = []
        self.deepest = 0

    @property
    def staging(self) -> Staging:
        return self._free[0] if self._free else self._under[0][0]

    @property
    def pending(self) -> int:
        return len(self._under)

    @property
    def full(self) -> bool:
        return not self._free

    @property
    def ready(self) -> bool:
        return bool(self._under) and self._dice.random() < self._chance

    def admit(self, support: Float) -> None: ...

    def bind(self, support: Float, mask: Float) -> None:
        self.inner.bind(support, mask)

    def run(self, n: int) -> tuple[Float, Float]:
        assert self._free, "not for a full engine"
        return self._compute(self.staging, n)

    def submit(self, n: int) -> None:
        self._under.append((self._free.pop(0), n))
        self.deepest = max(self.deepest, len(self._under))

    def collect(self) -> Float:
        staging, n = self._under.pop(0)
        self._free.append(staging)
        return self._compute(staging, n)[1]

    def _compute(self, staging: Staging, n: int) -> tuple[Float, Float]:
        self.inner.staging.joints[:n], self.inner.staging.visible[:n] = staging.joints[:n], staging.visible[:n]
        return self.inner.run(n)

    def close(self) -> None: ...


def support_of(*names: str, limit: float = 1.0, version: str = "v1") -> SupportSet:
    g = len(names)
    features, mask = np.zeros((g, 8, 8), np.float32), np.ones((g, 8), np.float32)
    return SupportSet(names, features, mask, np.full(g, limit), (3,) * g, version)


@dataclass
class Bench:
    """A runtime with its in-memory ends."""

    runtime: Runtime
    source: MemorySource
    sink: MemorySink
    clock: FakeClock
    told: io.StringIO

    def play(self, messages: Sequence[bytes | list[bytes]], chunk: int = 10**9) -> Bench:
        """Feed messages, step until all are read, and judge what is left."""
        self.source.queue += [m if isinstance(m, list) else [m] for m in messages]
        self.source.chunk = chunk
        while self.source.queue:
            self.runtime.step(0.05)
        self.runtime.dispatch.flush()
        return self


def bench(
    engine: Engine | None = None,
    support: SupportSet | None = None,
    *,
    bundle: Bundle | None = None,
    feed: object = None,
    clock: FakeClock | None = None,
    source: object = None,
    wall: Callable[[], int] = lambda: 0,
    **settings: object,
) -> Bench:
    fake = clock or FakeClock()
    bundle = bundle or open_bundle()
    options = Settings(**{"max_tracks": 64, **settings})  # type: ignore[arg-type]
    engine = engine or open_engine(bundle, max_batch=options.max_batch)
    memory, sink = MemorySource(fake), MemorySink()
    told = io.StringIO()
    runtime = Runtime(
        options,
        bundle,
        engine,
        support or support_of("calm"),
        source or memory,  # type: ignore[arg-type]
        sink,
        feed=feed,  # type: ignore[arg-type]
        notices=Notices(told, clock=fake),
        clock=fake,
        wall=wall,
    )
    return Bench(runtime, memory, sink, fake, told)


def person(height: float = 0.0) -> Float:
    """A rigid core15 person (15, 3) whose joints' mean height is `height`."""
    joints = np.zeros((len(CORE15), 3), np.float32)
    joints[:, 0] = np.linspace(-0.3, 0.3, len(CORE15))
    joints[:, 1] = height
    return joints


def message(
    stream: str, seq: int, t: float, people: dict[int, Float], *, visible: Float | None = None, end: bool = False
) -> bytes:
    """A core15 pose message; `t` in seconds."""
    joints = np.stack(list(people.values())) if people else np.zeros((0, 15, 3), np.float32)
    ids = np.array(list(people), np.int64)
    return encode_pose(PoseFrame(stream, seq, round(t * SECOND), get_layout("core15"), ids, joints, visible, None, end))


def stand(stream: str, seconds: float, heights: dict[int, float], fps: float = 24, start: float = 5.0) -> list[bytes]:
    """People who stand still at their heights."""
    people = {track: person(h) for track, h in heights.items()}
    return [message(stream, k, start + k / fps, people) for k in range(int(seconds * fps))]


def decisions(b: Bench) -> list[tuple[str, str, int, int]]:
    """Who alerted when an alert began or ended."""
    return sorted((a.stream, a.type, a.track, a.start) for a in b.sink.alerts() if a.type != "update")
