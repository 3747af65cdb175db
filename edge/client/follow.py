"""One row of numbered alerts, put in order: each once, gaps noticed, filled from the record or counted.

live alerts ──┐
statuses ─────┼──► Follower ──► alerts in order of `seq`
answers ──────┘        └──► `wants`: the number from which to ask the replay

No sockets and no clock in here: what arrives is told to it, what is due is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge.events import Alert

HELD_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that were published and will not come: numbers `first` up to, not including, `after` of a row."""

    row: str
    first: int
    after: int
    why: str
    what: str = "alerts"

    def __str__(self) -> str:
        return f"{self.after - self.first} {self.what} missed, seq {self.first} to {self.after - 1}: {self.why}"


class Follower:
    """`next` is the number to be delivered next; `known` the first one that nobody has told of yet.

    `next` None: what is heard first is the beginning. `on_record`: the row has a journal, so a gap can be filled.
    """

    def __init__(self, row: str, next: int | None = None, *, on_record: bool) -> None:
        self.row, self.next, self.on_record = row, next, on_record
        self.known = next or 0
        self.unsure = next is not None and on_record
        """Whether the record must be asked before anything is believed: at first, and after the engine's restart."""
        self._held: dict[int, Alert] = {}

    def wants(self) -> int | None:
        """The number to ask the record from; None while there is nothing to ask."""
        if not self.on_record or self.next is None:
            return None
        return self.next if self.unsure or self.next < self.known else None

    def heard(self, alert: Alert) -> tuple[list[Alert], list[Gap]]:
        """A live alert: what can be delivered now, and what is lost for good."""
        if self.next is None:
            self.next = alert.seq
        self.known = max(self.known, alert.seq + 1)
        if alert.seq >= self.next and len(self._held) < HELD_MOST:
            self._held[alert.seq] = alert  # beyond the cap the record has it
        return self._flow() if self.on_record else self.give_up("it has no journal to ask, or no replay")

    def told(self, following: int) -> tuple[list[Alert], list[Gap]]:
        """A status: all numbers below `following` have been published."""
        if self.next is None:
            self.next = following
        self.known = max(self.known, following)
        return ([], []) if self.on_record else self.give_up("it has no journal to ask, or no replay")

    def filled(
        self, since: int, alerts: Iterable[Alert], upto: int, first: int, following: int, began: int, thinned: int = 0
    ) -> tuple[list[Alert], list[Gap]]:
        """The record's answer to a question from `since`: all that it holds below `upto`, see `edge.journal.replay`.

        What is not there below `thinned` said only that an alert still stood: no gap.
        """
        if self.next is None or since > self.next:
            return [], []
        if following < since:  # an older state of the journal was put back: what this life of the engine says is new
            self.next, self.known, self.unsure = min(began, following), following, False
            self._held.clear()
            return [], [
                Gap(self.row, self.next, since, f"the journal is at {following}: it went back, or was never there")
            ]
        out: list[Alert] = []
        gaps: list[Gap] = []
        for alert in sorted(alerts, key=lambda a: a.seq):
            if self.next <= alert.seq < upto:
                self._skip(alert.seq, first, thinned, gaps)
                out.append(alert)
                self.next = alert.seq + 1
        self._skip(upto, first, thinned, gaps)
        self.known = max(self.known, following)
        self.unsure = False
        self._held = {s: a for s, a in self._held.items() if s >= self.next}
        more, _ = self._flow()
        return out + more, gaps

    def give_up(self, why: str) -> tuple[list[Alert], list[Gap]]:
        """Nobody will fill the gaps: deliver what is held, in order, and name what is missing."""
        out: list[Alert] = []
        gaps: list[Gap] = []
        if self.next is None:
            return out, gaps
        for seq in sorted(self._held):
            if seq > self.next:
                gaps.append(Gap(self.row, self.next, seq, why))
            out.append(self._held[seq])
            self.next = seq + 1
        self._held.clear()
        if self.next < self.known:
            gaps.append(Gap(self.row, self.next, self.known, why))
            self.next = self.known
        self.unsure = False
        return out, gaps

    def _skip(self, upto: int, first: int, thinned: int, gaps: list[Gap]) -> None:
        """Go on at `upto`: what is missing below `first` has been trimmed, from `thinned` on it never was on disk."""
        assert self.next is not None
        for start, end, why in (
            (self.next, min(first, upto), "no longer in the journal"),
            (max(self.next, first, thinned), upto, "never written to the journal"),
        ):
            if start < end:
                gaps.append(Gap(self.row, start, end, why))
        self.next = max(self.next, upto)

    def _flow(self) -> tuple[list[Alert], list[Gap]]:
        out: list[Alert] = []
        while not self.unsure and self.next is not None and self.next in self._held:
            out.append(self._held.pop(self.next))
            self.next += 1
        return out, []
