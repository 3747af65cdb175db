"""Defines the interface between the pipeline and an accelerator: its memory and queues, and the compiled program.

`edge/engine/cuda.py` and `tensorrt.py` implement it; the tests have a simulated device.
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
    """A block of device memory: its address, and its size in bytes."""

    address: int
    nbytes: int


class Device(Protocol):
    """An accelerator. Copies, `record`, `wait` and `replay` only queue work; the work in one stream runs in order.

    Once the device is gone, every call raises EngineError with `lost` set, which may be long after what broke it.
    """

    def allocate(self, nbytes: int) -> Memory:
        """Allocate device memory, with undefined content."""

    def pinned(self, shape: tuple[int, ...]) -> Float:
        """Allocate page-locked host memory, zeroed. It stays readable after `close` and after a loss."""

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def copy_in(self, target: Memory, source: Float, stream: Stream) -> None:
        """Queue a copy of `source`, a contiguous part of pinned memory, to the start of `target`."""

    def copy_out(self, target: Float, source: Memory, stream: Stream) -> None:
        """Queue a copy from the start of `source` that fills `target`, a contiguous part of pinned memory."""

    def record(self, event: Event, stream: Stream) -> None:
        """Make the event happen once all that is queued in the stream so far has run."""

    def wait(self, stream: Stream, event: Event) -> None:
        """Make what is queued in the stream from here on wait for the event as last recorded, if it ever was."""

    def synchronize(self, event: Event) -> None:
        """Block the caller until the event has happened."""

    def done(self, event: Event) -> bool:
        """Whether the event has happened."""

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph | None:
        """Capture what `enqueue` queues as one graph, without running it; None if it cannot be captured."""

    def replay(self, graph: Graph, stream: Stream) -> None: ...

    def forget(self, graph: Graph) -> None: ...

    def close(self) -> None: ...


class Run(Protocol):
    """One instance of a program to run. Shapes and addresses stay as `point` set them until it is called again."""

    def point(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """Set every input's shape, and every input's and output's address. Works on the host only."""

    def enqueue(self, stream: Stream) -> None:
        """Queue one execution."""


class Program(Protocol):
    """The compiled graph."""

    def new_run(self, place: int) -> Run:
        """Make another run. Runs of one `place` share scratch memory, so they must not overlap on the device.

        Runs of different places may overlap. A graph captures one run alone, with the shapes and addresses that the run
        had then. A program that supports only one run returns that one again, whatever the place.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Room:
    """What a program was compiled for: (min, max) windows, categories and shots of a run.

    The number of windows in a run must be a multiple of `step`.
    """

    batch: tuple[int, int]
    categories: tuple[int, int]
    shots: tuple[int, int]
    step: int = 1
