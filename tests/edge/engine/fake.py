"""A device behind the pipeline's own seam that runs what is queued as late as it may, in an order drawn by chance.

It knows what happened before what (a vector clock for each stream and one for the host), and raises Misuse for
- two accesses to the same memory, one of them a write, that no event orders;
- pinned memory that the host changed between queueing a copy and its running;
- any allocation after `seal`, and any call after a loss was reported or the device was closed.
What a queued copy out will bring is NaN until it has run, so a result that is read too early is seen.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.engine.device import Event, Graph, Memory, Stream
from edge.errors import EngineError
from edge.skeleton import Float

HOST = -1
Clock = Counter[int]


class Misuse(AssertionError):
    """The pipeline did what on a real device would be a race, a leak or undefined."""


@dataclass
class Op:
    run: Callable[[], None]
    ready: Callable[[], bool] = lambda: True
    launch: bool = False


@dataclass
class FakeEvent:
    clock: Clock = field(default_factory=Counter)
    recorded: int = 0
    happened: int = 0


class FakeDevice:
    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.memory: dict[int, Float] = {}
        self.host: list[Float] = []
        self.queues: dict[int, deque[Op]] = {}
        self.clocks: dict[int, Clock] = {HOST: Counter()}
        self.events: dict[int, FakeEvent] = {}
        self.graphs: dict[int, list[Callable[[int], None]]] = {}
        self.capturing: list[Callable[[int], None]] | None = None
        self.of: list[FakeRun] = []  # what is being captured
        self.captured: dict[int, FakeRun] = {}
        self.accesses: dict[Any, list[tuple[int, int, bool]]] = {}
        self.sealed = self.lost = self.reported = self.closed = False
        self.can_capture = True
        self.calls: Counter[str] = Counter()
        self.lose_after: int | None = None

    # ---- for tests ---------------------------------------------------------------------------------------------

    def seal(self) -> None:
        self.sealed = True

    def drain(self) -> None:
        while self._step():
            pass

    # ---- Device ------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> Memory:
        self._called("allocate", allocates=True)
        address = 4096 * (1 + len(self.memory))
        self.memory[address] = np.full(nbytes // 4, np.nan, np.float32)
        return Memory(address, nbytes)

    def pinned(self, shape: tuple[int, ...]) -> Float:
        self._called("pinned", allocates=True)
        self.host.append(np.zeros(shape, np.float32))
        return self.host[-1]

    def stream(self) -> Stream:
        self._called("stream", allocates=True)
        self.queues[len(self.queues)] = deque()
        self.clocks[len(self.queues) - 1] = Counter()
        return Stream(len(self.queues) - 1)

    def event(self) -> Event:
        self._called("event", allocates=True)
        self.events[len(self.events)] = FakeEvent()
        return Event(len(self.events) - 1)

    def copy_in(self, target: Memory, source: Float, stream: Stream) -> None:
        self._called("copy_in")
        self._no_capture()
        if source.nbytes > target.nbytes or not source.flags.c_contiguous:
            raise Misuse("a copy beyond the memory, or of something scattered")
        seen = source.copy()
        self._access(stream, reads=[self._place(source)], writes=[target.address])

        def run() -> None:
            if not np.array_equal(seen, source):
                raise Misuse("the host wrote to pinned memory while a copy from it was under way")
            self.memory[target.address][: source.size] = source.reshape(-1)

        self.queues[stream].append(Op(run))

    def copy_out(self, target: Float, source: Memory, stream: Stream) -> None:
        self._called("copy_out")
        self._no_capture()
        if target.nbytes > source.nbytes or not target.flags.c_contiguous:
            raise Misuse("a copy beyond the memory, or to something scattered")
        self._access(stream, reads=[source.address], writes=[self._place(target)])
        target[...] = np.nan

        def run() -> None:
            target[...] = self.memory[source.address][: target.size].reshape(target.shape)

        self.queues[stream].append(Op(run))

    def record(self, event: Event, stream: Stream) -> None:
        self._called("record")
        e = self.events[event]
        e.recorded += 1
        number = e.recorded
        e.clock = self._tick(stream).copy()

        def run() -> None:
            e.happened = number

        self.queues[stream].append(Op(run))

    def wait(self, stream: Stream, event: Event) -> None:
        self._called("wait")
        e = self.events[event]
        number = e.recorded
        self.clocks[stream] |= e.clock
        self.queues[stream].append(Op(lambda: None, lambda: e.happened >= number))

    def synchronize(self, event: Event) -> None:
        self._called("synchronize")
        e = self.events[event]
        if not e.recorded:
            raise Misuse("waiting for an event that was never recorded")
        while e.happened < e.recorded:
            if not self._step():
                raise Misuse("waiting for what cannot happen")
        self.clocks[HOST] |= e.clock

    def done(self, event: Event) -> bool:
        self._called("done")
        self._step()
        e = self.events[event]
        if e.happened >= e.recorded:
            self.clocks[HOST] |= e.clock
            return True
        return False

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph | None:
        self._called("capture")
        if not self.can_capture:
            return None
        self.capturing, self.of = [], []
        try:
            enqueue()
        finally:
            taken, self.capturing = self.capturing, None
        number = 1 + max(self.graphs, default=0)
        self.graphs[number] = taken
        (self.captured[number],) = self.of
        return Graph(number)

    def replay(self, graph: Graph, stream: Stream) -> None:
        self._called("replay")
        for launch in self.graphs[graph]:
            launch(stream)

    def forget(self, graph: Graph) -> None:
        self._called("forget")
        del self.graphs[graph], self.captured[graph]

    def close(self) -> None:
        self.closed = True

    # ---- for the fake program ----------------------------------------------------------------------------------

    def launch(self, stream: int, reads: list[Any], writes: list[Any], run: Callable[[], None]) -> None:
        def queue(stream: int) -> None:
            self._access(stream, reads, writes)
            self.queues[stream].append(Op(run, launch=True))

        self._called("launch")
        if self.capturing is not None:
            self.capturing.append(queue)
        else:
            queue(stream)

    # ---- inside ------------------------------------------------------------------------------------------------

    def _called(self, name: str, allocates: bool = False) -> None:
        self.calls[name] += 1
        if self.closed or self.reported:
            raise Misuse(f"{name} after the device was {'closed' if self.closed else 'lost'}")
        if self.lose_after is not None:
            self.lose_after -= 1
            self.lost = self.lost or self.lose_after < 0
        if self.lost:
            self.reported = True
            raise EngineError("the GPU is lost", why="a test pulled it out", lost=True)
        if allocates and self.sealed:
            raise Misuse(f"{name} after everything was allocated")

    def _no_capture(self) -> None:
        if self.capturing is not None:
            raise Misuse("a copy within a capture")

    def _place(self, array: Float) -> tuple[str, int]:
        start = array.__array_interface__["data"][0]
        for i, block in enumerate(self.host):
            first = block.__array_interface__["data"][0]
            if first <= start and start + array.nbytes <= first + block.nbytes:
                return ("host", i)
        raise Misuse("a copy from or to memory that is not pinned")

    def _tick(self, stream: int) -> Clock:
        clock = self.clocks[stream]
        clock |= self.clocks[HOST]
        clock[stream] += 1
        self.clocks[stream] = clock
        return clock

    def _access(self, stream: int, reads: list[Any], writes: list[Any]) -> None:
        clock = self._tick(stream)
        for place, write in [*((p, False) for p in reads), *((p, True) for p in writes)]:
            earlier = self.accesses.setdefault(place, [])
            for other, number, wrote in earlier:
                if (write or wrote) and clock[other] < number:
                    raise Misuse(f"a race at {place}: {'write' if write else 'read'}, not after an earlier access")
            earlier[:] = [a for a in earlier if clock[a[0]] < a[1] or not write]
            earlier.append((stream, clock[stream], write))

    def _step(self) -> bool:
        able = [q for q in self.queues.values() if q and q[0].ready()]
        if not able:
            return False
        able[self.random.integers(len(able))].popleft().run()
        return True


class FakeProgram:
    """Something whose numbers depend on every input, with the graph's names and shapes."""

    def __init__(self, device: FakeDevice, size: int, only: bool = False) -> None:
        self.device, self.size = device, size
        self.runs: list[int] = []
        self.made = 0
        self.only = FakeRun(self, 0) if only else None

    def new_run(self, place: int) -> FakeRun:
        self.made += 1
        return self.only or FakeRun(self, place)

    def close(self) -> None:
        if self.device.closed:
            raise Misuse("the program closed after its device")
        if self.device.graphs or any(op.launch for q in self.device.queues.values() for op in q):
            raise Misuse("the program closed while something of it runs, or may")


class FakeRun:
    """One run of it; it knows where it computes, whether it ran since its shapes changed, and what was captured."""

    OUTPUTS = ("embedding", "distance")

    def __init__(self, program: FakeProgram, place: int) -> None:
        self.program, self.device, self.place = program, program.device, place
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.settled = False

    def point(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        if self in self.device.captured.values():
            raise Misuse("pointed elsewhere while a graph relies on it")
        self.settled = self.settled and dict(shapes) == self.shapes
        self.shapes, self.addresses = dict(shapes), dict(addresses)

    def enqueue(self, stream: Stream) -> None:
        if self.device.capturing is not None:
            if not self.settled:
                raise Misuse("captured right after a change of shape")
            self.device.of.append(self)
        self.settled = True
        shapes, addresses, memory = dict(self.shapes), dict(self.addresses), self.device.memory
        self.program.runs.append(shapes["joints"][0])

        def read(name: str) -> Float:
            shape = shapes[name]
            return memory[addresses[name]][: int(np.prod(shape))].reshape(shape)

        def run() -> None:
            e, d = expected(*(read(n) for n in ("joints", "visible", "support", "support_mask")))
            memory[addresses["embedding"]][: e.size] = e.reshape(-1)
            memory[addresses["distance"]][: d.size] = d.reshape(-1)

        reads = [addresses[n] for n in ("joints", "visible", "support", "support_mask")]
        # All runs of a place compute in the same memory, which each of them writes.
        self.device.launch(stream, reads, [*(addresses[n] for n in self.OUTPUTS), ("scratch", self.place)], run)


def expected(joints: Float, visible: Float, support: Float, mask: Float) -> tuple[Float, Float]:
    """embedding (B, D), distance (B, G), in plain numpy."""
    seen = (joints * visible[..., None]).reshape(len(joints), -1).astype(np.float64)
    d = support.shape[-1]
    weights = np.sin(np.arange(seen.shape[1] * d)).reshape(-1, d)
    embedding = np.tanh(seen @ weights / 50)
    near = np.einsum("bd,gkd->bgk", embedding, support.astype(np.float64)) * mask
    return embedding.astype(np.float32), near.sum(-1).astype(np.float32)
