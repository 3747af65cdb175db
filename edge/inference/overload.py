"""What happens when windows are due faster than the engine judges them: the policy, and what it says of itself.

wait           the loop waits for the engine and reads no messages meanwhile: nothing is skipped, senders wait
drop-oldest    a track that is due again before its turn came gives up its older window (`overload`)
widen-stride   the same, and then all tracks are due half as often, up to an eighth (`stride_widened`), until the
               engine has kept up for a while
"""

from __future__ import annotations

from edge.inference.backlog import Backlog
from edge.inference.counts import Counts
from edge.windows import Slots, Windows

WIDEST = 8
CALM_S = 5
"""Seconds without a skipped window before the stride narrows again."""


class Overload:
    """The windows that wait for the engine, under one policy. `reason` says what is being given up, or ''."""

    def __init__(self, policy: str, windows: Windows, counts: Counts) -> None:
        self.policy, self.backlog, self.reason = policy, Backlog(), ""
        self._windows, self._counts = windows, counts
        self._before = self._calm = 0

    @property
    def waits(self) -> bool:
        """Whether the loop may wait for the engine."""
        return self.policy == "wait"

    def put(self, slots: Slots) -> None:
        """Let due windows wait for their turns; of a track that is waiting already the older one is given up."""
        for slot in slots.tolist():
            stream = self._windows.stream[slot]
            if stream is not None and not self.backlog.add(stream.name, slot):
                self._counts.skipped["overload"] += 1

    def take(self, n: int) -> list[int]:
        """The next slots whose windows are still whole, `n` at most. The others have had a gap since."""
        taken = self.backlog.take(n)
        whole = [slot for slot in taken if self._windows.rows[slot] >= self._windows.spec.frames]
        if len(whole) < len(taken):
            self._counts.skipped["overload"] += len(taken) - len(whole)
        return whole

    def forget(self, slots: list[int]) -> None:
        """Their tracks are about to go."""
        if self.backlog.n:
            for slot in slots:
                stream = self._windows.stream[slot]
                if stream is not None and self.backlog.forget(stream.name, [slot]):
                    self._counts.skipped["overload"] += 1

    def every_second(self) -> None:
        """Say how it stands, and widen or narrow the stride. Not for `wait`, which skips nothing."""
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
