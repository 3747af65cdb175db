"""Decides what happens when windows are due faster than the engine judges them, and reports it.

wait           the loop waits for the engine and reads no messages meanwhile: nothing is skipped, senders wait
drop-oldest    a track that is due again before its turn has come loses its older window (counted `overload`)
widen-stride   as drop-oldest, and all tracks are then due half as often, down to an eighth (counted
               `stride_widened`), until the engine has kept up for a while
"""

from __future__ import annotations

from edge.inference.backlog import Backlog
from edge.inference.counts import Counts
from edge.windows import Slots, Windows

WIDEST = 8
CALM_S = 5
"""Seconds without a skipped window before the stride narrows again."""


class Overload:
    """Manages the windows that wait for the engine, under one policy. `reason` says what is being skipped, or ''."""

    def __init__(self, policy: str, windows: Windows, counts: Counts) -> None:
        self.policy, self.backlog, self.reason = policy, Backlog(), ""
        self._windows, self._counts = windows, counts
        self._before = self._calm = 0

    @property
    def waits(self) -> bool:
        """Whether the loop may wait for the engine."""
        return self.policy == "wait"

    def put(self, slots: Slots) -> None:
        """Queue slots with due windows; a track that is waiting already loses its older window."""
        for slot in slots.tolist():
            stream = self._windows.stream[slot]
            if stream is not None and not self.backlog.add(stream.name, slot):
                self._counts.skipped["overload"] += 1

    def take(self, n: int) -> list[int]:
        """Take the next slots with complete windows, `n` at most; those that have had a gap since are skipped."""
        taken = self.backlog.take(n)
        whole = [slot for slot in taken if self._windows.rows[slot] >= self._windows.spec.frames]
        if len(whole) < len(taken):
            self._counts.skipped["overload"] += len(taken) - len(whole)
        return whole

    def forget(self, slots: list[int]) -> None:
        """Remove slots whose tracks are about to be released."""
        if self.backlog.n:
            for slot in slots:
                stream = self._windows.stream[slot]
                if stream is not None and self.backlog.forget(stream.name, [slot]):
                    self._counts.skipped["overload"] += 1

    def every_second(self) -> None:
        """Update `reason`, and widen or narrow the stride. Under `wait` there is nothing to report or to adjust."""
        skipped, windows = self._counts.skipped, self._windows
        if windows.widened:
            skipped["stride_widened"] = windows.widened
        lost, self._before = skipped["overload"] - self._before, skipped["overload"]
        self._calm = 0 if lost else self._calm + 1
        if self.policy == "widen-stride":
            if lost:
                windows.widen = min(WIDEST, 2 * windows.widen)
            elif self._calm >= CALM_S and windows.widen > 1:
                windows.widen, self._calm = windows.widen // 2, 0
        said = [f"{lost} windows in the last second were not judged"] if lost else []
        if windows.widen > 1:
            said.append(f"the stride is {windows.widen} times as wide")
        self.reason = "overloaded: " + ", ".join(said) if said else ""
