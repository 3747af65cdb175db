"""Sends due windows through the engine in batches, and lets them wait for a turn when it has no room.

    stage ─► Batch ─submit─► engine (a few batches deep) ─collect─► judge(batch, distance)
       └──► Overload's backlog ─ when a batch was collected ─┘

While the engine computes, the caller goes on receiving and staging. Everything here runs in the caller's thread, in
`stage` and `turn`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge.engine import Engine
from edge.errors import EngineError
from edge.inference.batch import Batch, InFlight
from edge.inference.counts import Counts
from edge.inference.overload import Overload
from edge.skeleton import Float
from edge.windows import Slots, Windows

POLL_S = 0.001
"""Seconds between checks of the engine's progress when no message comes in."""


class Dispatch:
    """Batches due windows, submits the batches and collects their results.

    `judge` is called with every batch and its distances (n, G), `failed` with every error. `deadline` is how many
    seconds a staged window waits for others.
    """

    def __init__(
        self,
        engine: Engine,
        windows: Windows,
        counts: Counts,
        judge: Callable[[InFlight, Float], None],
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
        self._in_flight: deque[InFlight] = deque()

    @property
    def in_flight(self) -> int:
        """How many batches were submitted and not yet collected."""
        return len(self._in_flight)

    def stage(self, slots: Slots, ends: NDArray[np.int64], now: float) -> None:
        """Take due windows. Under the policy `wait` this may block until the engine has room."""
        while len(slots):
            if not self.overload.waits and (self._engine.full or self.overload.backlog.n):
                self.overload.put(slots)
                return
            if self._engine.full:
                self._collect()
            taken = self.batch.add(slots, ends, now)
            slots, ends = slots[taken:], ends[taken:]
            if self.batch.full:
                self._submit()

    def turn(self) -> None:
        """Collect the results that are ready, and submit the staged batch if its deadline has passed."""
        while self._engine.ready:
            self._collect()
        self._catch_up()
        # While the engine is busy, the batch grows until it is full: submitting it earlier would gain nothing.
        if self.batch.n and not self._in_flight and self._clock() >= self.batch.since + self._deadline:
            self._submit()

    def patience(self, most: float) -> float:
        """Seconds until `turn` may have something to do, at most `most`."""
        if self._in_flight:
            return POLL_S
        if not self.batch.n:
            return most
        return max(0.0, min(most, self.batch.since + self._deadline - self._clock()))

    def settle(self) -> None:
        """Judge everything that is staged or in flight."""
        self._submit()
        while self._in_flight:
            self._collect()

    def flush(self) -> None:
        """Judge everything that is waiting, staged or in flight."""
        self.settle()
        while self.overload.backlog.n:
            self._catch_up()
            self.settle()

    def release(self, slots: list[int]) -> None:
        """Prepare for the release of slots: drop those that wait, and judge what is staged or in flight of them."""
        self.overload.forget(slots)
        if any(np.isin(slots, part).any() for part in (self.batch.slots, *(f.slots for f in self._in_flight))):
            self.settle()

    def _submit(self) -> None:
        if not self.batch.n:
            return
        batch = self.batch.take(self._clock())
        self._in_flight.append(batch)
        try:
            self._engine.submit(len(batch.slots))
        except EngineError as e:
            # The engine did not take this batch; older ones may still be in flight, and their results come first.
            self._counts.skipped["engine_failed"] += len(self._in_flight.pop().slots)
            self._lose(e)

    def _collect(self) -> None:
        """Wait for the result of the oldest batch in flight, and have it judged."""
        try:
            distance = self._engine.collect()
        except EngineError as e:
            self._lose(e)
            return
        batch = self._in_flight.popleft()
        self._counts.batch(batch, self._clock())
        self._judge(batch, distance)

    def _lose(self, e: EngineError) -> None:
        """Count the windows that the engine lost with failed batches, and report the error."""
        while len(self._in_flight) > self._engine.pending:
            self._counts.skipped["engine_failed"] += len(self._in_flight.popleft().slots)
        self._failed(e)

    def _catch_up(self) -> None:
        """Stage waiting slots as far as the engine has room."""
        while self.overload.backlog.n and not self._engine.full:
            slots = np.array(self.overload.take(self.batch.room), np.intp)
            if len(slots):
                self.batch.add(slots, self._windows.ends(slots), self._clock())
            if self.batch.full:
                self._submit()
