"""Runs the simulated cameras in a process: messages over real ZeroMQ, at the wall clock's pace or flat out.

bench ──spawn──► cameras ── pose/… ──► haad-edge run
  └── pipe: started, stop, what was sent ──┘
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from edge.bench.traffic import Camera, Load, cameras, schedule
from edge.errors import HaadError
from edge.grid import SECOND
from edge.network.endpoint import Endpoint

CHUNK_S = 0.5
QUANTUM_S = 0.0005
"""Shorter sleeps cost more than they gain."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the camera process did: messages, wall and CPU seconds, and how many seconds it was behind its schedule."""

    messages: int
    seconds: float
    cpu: float
    late_p99: float
    late_max: float


def _paced(seen: list[Camera], send: Any, stop: Any) -> tuple[int, list[float]]:
    """Send each frame when it is due, with the current time as its capture time."""
    start, first, count = time.perf_counter(), 0.0, 0
    late: list[float] = []
    while not stop():
        times, who = schedule(seen, CHUNK_S, first)
        for due, c in zip(times.tolist(), who.tolist(), strict=True):
            wait = start + due - time.perf_counter()
            if wait > QUANTUM_S:
                time.sleep(wait)
            late.append(time.perf_counter() - start - due)
            send(seen[c].next(time.time_ns()))
        count += len(times)
        first += CHUNK_S
    return count, late


def _flat_out(seen: list[Camera], send: Any, stop: Any) -> tuple[int, list[float]]:
    """Send as fast as the socket accepts; capture times are those of the schedule."""
    epoch, first, count = time.time_ns(), 0.0, 0
    while True:
        times, who = schedule(seen, CHUNK_S, first)
        stamps = (epoch + (times * SECOND).astype(np.int64)).tolist()
        for n, (t, c) in enumerate(zip(stamps, who.tolist(), strict=True)):
            if n % 64 == 0 and stop():
                return count, []
            send(seen[c].next(t))
            count += 1
        first += CHUNK_S


def run(load: Load, endpoint: str, paced: bool, pipe: Connection) -> None:
    """The process's main: make the traces and report it, wait for an engine, send until told to stop."""
    import zmq

    seen = cameras(load)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = Endpoint.parse(endpoint, ("pub", "push")).open(context, hwm=10_000)
    socket.setsockopt(zmq.SNDTIMEO, 200)
    try:
        pipe.send("made")
        push = endpoint.startswith("push")
        while not socket.poll(100, zmq.POLLOUT if push else zmq.POLLIN):
            if pipe.poll():
                return
        pipe.send("started")

        def send(message: bytes) -> None:
            while True:
                try:
                    socket.send(message)
                    return
                except zmq.Again:  # the engine is slow; or it is gone, and then a stop follows
                    if pipe.poll():
                        return

        cpu, start = time.process_time(), time.perf_counter()
        count, late = (_paced if paced else _flat_out)(seen, send, pipe.poll)
        tail = np.array(late or [0.0])
        pipe.send(
            Sent(
                count,
                time.perf_counter() - start,
                time.process_time() - cpu,
                float(np.quantile(tail, 0.99)),
                float(tail.max()),
            )
        )
    finally:
        socket.close(0)
        context.term()


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes started inside the block ignore Ctrl-C, which the terminal sends to all: their parent stops them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Cameras:
    """The running camera process."""

    def __init__(self, load: Load, endpoint: str, *, paced: bool) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=run, args=(load, endpoint, paced, theirs), daemon=True)
        with _ignoring_interrupts():
            self._process.start()
        theirs.close()
        self._expect("made", 60)

    def _expect(self, word: str, seconds: float) -> None:
        try:
            said = self._pipe.recv() if self._pipe.poll(seconds) else None
        except EOFError:
            said = None
        if said != word:
            raise HaadError(
                "the simulated cameras do not send", why=f"waited {seconds:g} s for them to report '{word}'"
            )

    def started(self, seconds: float = 60) -> None:
        """Wait until an engine receives what they send."""
        self._expect("started", seconds)

    def stop(self) -> Sent:
        """Stop sending, and return what was sent."""
        self._pipe.send("stop")
        if not self._pipe.poll(20):
            raise HaadError("the simulated cameras do not stop", why="they have not answered for 20 s")
        sent: Sent = self._pipe.recv()
        return sent

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._pipe.send("stop")
        self._process.join(3)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        self._pipe.close()


@contextlib.contextmanager
def sending(load: Load, endpoint: str, *, paced: bool) -> Iterator[Cameras]:
    """Run cameras inside the block."""
    found = Cameras(load, endpoint, paced=paced)
    try:
        yield found
    finally:
        found.close()
