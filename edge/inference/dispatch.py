"""The way of due windows through the engine: staged, under way, landed; or waiting for a turn when there is no room.

    stage ─► Batch ─launch─► engine (some batches deep) ─land─► judge(flight, distance)
       └──► Overload's backlog ─ when a batch has landed ─┘

While the engine computes, the caller goes on receiving and staging. All in the caller's thread, in `stage` and `turn`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge.engine import Engine
from edge.errors import EngineError
from edge.inference.batch import Batch, Flight
from edge.inference.counts import Counts
from edge.inference.overload import Overload
from edge.skeleton import Float
from edge.windows import Slots, Windows

LOOK_S = 0.001
"""Between looks at what the engine is doing, when nothing comes in."""


class Dispatch:
    """`judge` is called with every batch's distances (n, G), `failed` with every error. `deadline` in seconds."""

    def __init__(
        self,
        engine: Engine,
        windows: Windows,
        counts: Counts,
        judge: Callable[[Flight, Float], None],
        failed: Callable[[EngineError], None],
        *,
        policy: str,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine, self._windows, self._counts = engine, windows, counts
        self._judge, self._failed, self._deadline, self._clock = judge, failed, deadline, clock
        self.batch = Batch(engine, windows)
        self.overload = Overload(policy, windows, counts)
        self._flights: deque[Flight] = deque()

    @property
    def under_way(self) -> int:
        """How many batches the engine has that have not landed."""
        return len(self._flights)

    def stage(self, slots: Slots, ends: NDArray[np.int64], now: float) -> None:
        """Take due windows. Where the policy is to wait this may wait for the engine."""
        while len(slots):
            if not self.overload.waits and (self._engine.full or self.overload.backlog.n):
                self.overload.put(slots)
                return
            if self._engine.full:
                self._land()
            taken = self.batch.add(slots, ends, now)
            slots, ends = slots[taken:], ends[taken:]
            if self.batch.full:
                self._launch()

    def turn(self) -> None:
        """Land what is ready, and launch what is due to be."""
        while self._engine.ready:
            self._land()
        self._catch_up()
        # While the engine has work, the batch grows until it is full: there is nothing to win by a smaller one.
        if self.batch.n and not self._flights and self._clock() >= self.batch.since + self._deadline:
            self._launch()

    def patience(self, most: float) -> float:
        """Seconds until `turn` may have something to do, `most` at most."""
        if self._flights:
            return LOOK_S
        if not self.batch.n:
            return most
        return max(0.0, min(most, self.batch.since + self._deadline - self._clock()))

    def settle(self) -> None:
        """Judge all that is staged or under way."""
        self._launch()
        while self._flights:
            self._land()

    def flush(self) -> None:
        """Judge all that is due, staged or under way."""
        self.settle()
        while self.overload.backlog.n:
            self._catch_up()
            self.settle()

    def release(self, slots: list[int]) -> None:
        """The slots' tracks are about to go: judge what is staged or under way of them."""
        self.overload.forget(slots)
        if any(np.isin(slots, part).any() for part in (self.batch.slots, *(f.slots for f in self._flights))):
            self.settle()

    def _launch(self) -> None:
        if not self.batch.n:
            return
        flight = self.batch.take(self._clock())
        self._flights.append(flight)
        try:
            self._engine.submit(len(flight.slots))
        except EngineError as e:
            # This one was not taken; older ones may still be under way, and their results come first.
            self._counts.skipped["engine_failed"] += len(self._flights.pop().slots)
            self._lose(e)

    def _land(self) -> None:
        """Wait for the oldest batch under way."""
        try:
            distance = self._engine.collect()
        except EngineError as e:
            self._lose(e)
            return
        flight = self._flights.popleft()
        self._counts.batch(flight, self._clock())
        self._judge(flight, distance)

    def _lose(self, e: EngineError) -> None:
        """A batch came to nothing: count every window that the engine no longer has."""
        while len(self._flights) > self._engine.pending:
            self._counts.skipped["engine_failed"] += len(self._flights.popleft().slots)
        self._failed(e)

    def _catch_up(self) -> None:
        """Stage what waits for its turn, as far as the engine has room."""
        while self.overload.backlog.n and not self._engine.full:
            slots = np.array(self.overload.take(self.batch.room), np.intp)
            if len(slots):
                self.batch.add(slots, self._windows.ends(slots), self._clock())
            if self.batch.full:
                self._launch()
