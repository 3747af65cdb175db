"""The seam between the pipeline and an accelerator: where things lie and are queued, and what is computed.

`edge/engine/cuda.py` and `tensorrt.py` are the real ones; the tests have a device of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NewType, Protocol

from edge.skeleton import Float

Stream = NewType("Stream", int)
Event = NewType("Event", int)
Graph = NewType("Graph", int)


@dataclass(frozen=True, slots=True)
class Memory:
    """Device memory: where it begins, and how many bytes it has."""

    address: int
    nbytes: int


class Device(Protocol):
    """An accelerator. Copies, `record`, `wait` and `replay` only queue; what was queued in one stream runs in order.

    Every call raises EngineError with `lost` set once the device is gone, which may be long after what broke it.
    """

    def allocate(self, nbytes: int) -> Memory:
        """Device memory, of undefined content."""

    def pinned(self, shape: tuple[int, ...]) -> Float:
        """Page-locked host memory, zeroed. It stays readable after `close` and after a loss."""

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def copy_in(self, target: Memory, source: Float, stream: Stream) -> None:
        """Queue a copy of `source`, a contiguous part of pinned memory, to the beginning of `target`."""

    def copy_out(self, target: Float, source: Memory, stream: Stream) -> None:
        """Queue a copy from the beginning of `source` into all of `target`, a contiguous part of pinned memory."""

    def record(self, event: Event, stream: Stream) -> None:
        """The event has happened when all that is queued in the stream so far has run."""

    def wait(self, stream: Stream, event: Event) -> None:
        """What is queued in the stream from here on runs after the event, as it was last recorded, if it ever was."""

    def synchronize(self, event: Event) -> None:
        """Block the caller until the event has happened."""

    def done(self, event: Event) -> bool:
        """Whether the event has happened."""

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph | None:
        """What `enqueue` would queue, as one graph, without running it; None where that cannot be captured."""

    def replay(self, graph: Graph, stream: Stream) -> None: ...

    def forget(self, graph: Graph) -> None: ...

    def close(self) -> None: ...


class Run(Protocol):
    """One way to run a program. Shapes and places stay as `point` left them until it is called again."""

    def point(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """Give every input its shape, every input and output its place. Host work only."""

    def enqueue(self, stream: Stream) -> None:
        """Queue one run."""


class Program(Protocol):
    """The compiled graph."""

    def new_run(self, place: int) -> Run:
        """Another run of it. Those of one place compute in the same memory, so they must not overlap on the device.

        Those of different places may. A graph is captured of one run and of nothing else: it holds on to what the run
        knew when it was captured. A program that can have one run only gives that one again, whatever the place.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Room:
    """What a program was compiled for: (least, most) windows, categories and shots of a run.

    The windows of a run must be a multiple of `step`.
    """

    batch: tuple[int, int]
    categories: tuple[int, int]
    shots: tuple[int, int]
    step: int = 1
