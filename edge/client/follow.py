"""Puts one row of numbered alerts in order: each once, with gaps noticed, and filled from the record or counted.

live alerts ──┐
statuses ─────┼──► Follower ──► alerts in order of `seq`
answers ──────┘        └──► `next_request`: the number to ask the replay for next

There are no sockets and no clock here: the caller passes in what arrives, and asks what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge.events import Alert

HELD_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a row that were published and will not come: numbers `first` up to, not including, `after`."""

    row: str
    first: int
    after: int
    why: str
    what: str = "alerts"

    def __str__(self) -> str:
        return f"{self.after - self.first} {self.what} missed, seq {self.first} to {self.after - 1}: {self.why}"


class Follower:
    """Follows one row. `next` is the number to deliver next; all numbers below `known` have been published.

    With `next` None, it begins with whatever arrives first. `on_record`: the row has a journal, so gaps can be filled.
    """

    def __init__(self, row: str, next: int | None = None, *, on_record: bool) -> None:
        self.row, self.next, self.on_record = row, next, on_record
        self.known = next or 0
        self.must_ask = next is not None and on_record
        """Whether to ask the record before delivering anything: at first, and after a restart of the engine."""
        self._held: dict[int, Alert] = {}

    def next_request(self) -> int | None:
        """The number to ask the record from; None if there is nothing to ask for."""
        if not self.on_record or self.next is None:
            return None
        return self.next if self.must_ask or self.next < self.known else None

    def on_alert(self, alert: Alert) -> tuple[list[Alert], list[Gap]]:
        """Take a live alert. Returns the alerts that can be delivered now, and the gaps that cannot be filled."""
        if self.next is None:
            self.next = alert.seq
        self.known = max(self.known, alert.seq + 1)
        if alert.seq >= self.next and len(self._held) < HELD_MOST:
            self._held[alert.seq] = alert  # beyond the cap it comes from the record
        return self._flow() if self.on_record else self.give_up("it has no journal to ask, or no replay")

    def on_status(self, following: int) -> tuple[list[Alert], list[Gap]]:
        """Take a status: all numbers below `following` have been published. Returns as `on_alert` does."""
        if self.next is None:
            self.next = following
        self.known = max(self.known, following)
        return ([], []) if self.on_record else self.give_up("it has no journal to ask, or no replay")

    def on_answer(
        self, since: int, alerts: Iterable[Alert], upto: int, first: int, following: int, began: int, thinned: int = 0
    ) -> tuple[list[Alert], list[Gap]]:
        """Take an answer to a request from `since`: all that the record holds below `upto`, see `edge.journal.replay`.

        What is missing below `thinned` said only that an alert was still standing, so it is no gap.
        """
        if self.next is None or since > self.next:
            return [], []
        if following < since:  # the journal went back (an older copy, a lost disk): what this run publishes is new
            self.next, self.known, self.must_ask = min(began, following), following, False
            self._held.clear()
            return [], [
                Gap(
                    self.row,
                    self.next,
                    since,
                    f"the journal is only at {following}: it went back, or never got so far",
                )
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
        self.must_ask = False
        self._held = {s: a for s, a in self._held.items() if s >= self.next}
        more, _ = self._flow()
        return out + more, gaps

    def give_up(self, why: str) -> tuple[list[Alert], list[Gap]]:
        """The gaps cannot be filled: return what is held, in order, and what is missing."""
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
        self.must_ask = False
        return out, gaps

    def _skip(self, upto: int, first: int, thinned: int, gaps: list[Gap]) -> None:
        """Skip to `upto`. What is missing below `first` was trimmed; from `thinned` on, it never was on disk."""
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
        while not self.must_ask and self.next is not None and self.next in self._held:
            out.append(self._held.pop(self.next))
            self.next += 1
        return out, []
