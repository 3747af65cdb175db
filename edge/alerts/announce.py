"""Publishes what the engine has to say: alerts, scores and status, each kind numbered without a gap.

Alerts pass through the outbox, which writes them to disk first; without an outbox they are published at once.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.alerts.book import Change
from edge.errors import WireError
from edge.events import Alert, Provenance, Scores, Status, decode_event, encode_event
from edge.grid import SECOND
from edge.journal.outbox import Outbox
from edge.network.sink import Sink
from edge.skeleton import Float
from edge.windows import Slots, Windows

DRAIN_S = 1.5


@dataclass(frozen=True, slots=True)
class Cause:
    """What an alert's window differs from, and where.

    The nearest normal category and the clip of it that came nearest; the joints and the moment (from, to; ns) that
    differ most; the earlier alert that it is like.
    """

    category: str
    clip: str = ""
    joints: tuple[str, ...] = ()
    moment: tuple[int, ...] = ()
    like: str = ""


NONE = Cause("")


class Announcer:
    """Turns the loop's findings into messages.

    `run` identifies this run of the process; `by` says which model, engine and support judged. `trouble` says why there
    is no journal although one was asked for; `replay` is the address to ask for earlier alerts; `threshold` is the
    score from which a window counts towards an alert.
    """

    def __init__(self, sink: Sink, windows: Windows) -> None:
        self._sink, self._windows = sink, windows
        self.run = uuid.uuid4().hex[:12]
        self.by = Provenance("", "", "")
        self.status_seq = 0
        self.trouble = self.replay = ""
        self.threshold = 1.0
        self.replays: Counter[str] = Counter()
        self._sent = 0
        self._outbox: Outbox | None = None
        self._cause: dict[int, Cause] = {}

    @property
    def journal_failures(self) -> int:
        """How often writing alerts to disk failed."""
        return self._outbox.failures if self._outbox else int(bool(self.trouble))

    @property
    def unwritten(self) -> int:
        """How many alert messages were published without being written to disk, although a journal was asked for."""
        if self._outbox:
            return self._outbox.unwritten
        return self._sent if self.trouble else 0  # a journal that could not be opened holds none of them

    @property
    def alert_seq(self) -> int:
        """The number of the next alert to be published."""
        return self._outbox.published if self._outbox else self._sent

    def write_to(self, outbox: Outbox) -> None:
        """Write alerts to disk first from now on, and end those that an earlier run left standing. Raises HaadError."""
        left = outbox.journal.standing()
        self._outbox = outbox
        for message in left:
            try:
                event = decode_event([message])
            except WireError:
                continue
            if isinstance(event, Alert):
                why = "the engine stopped while this alert stood"
                self._say(replace(event, type="end", run=self.run, reason=why))

    def _say(self, message: Alert, passing: bool = False) -> None:
        """Number an alert message and send it, through the outbox if there is one.

        `passing`: the message says only that its alert still stands.
        """
        if self._outbox is None:
            message = replace(message, seq=self._sent)
            self._sent += 1
            self._sink.send(encode_event(message))
            return
        message = replace(message, seq=self._outbox.next, journal=self._outbox.journal.id)
        self._outbox.put(message.id, message.type == "end", encode_event(message), passing)

    def cause(self, slot: int, cause: Cause) -> None:
        """Set the cause that a slot's alert messages name until the alert ends."""
        self._cause[slot] = cause

    def cause_of(self, slot: int) -> Cause:
        """The cause that a slot's alert messages name."""
        return self._cause.get(slot, NONE)

    def alert(self, c: Change, why: str = "") -> None:
        """Publish one change of an alert. `why` replaces the reason that follows from the change."""
        stream = self._windows.stream[c.slot]
        assert stream is not None, "an alert ends before its track is released"
        cause = self.cause_of(c.slot)
        lasted = (c.end - c.start) / SECOND
        still = "still abnormal" if c.score >= self.threshold else "not yet normal again"
        reason = {
            "new": f"unlike '{cause.category}', the nearest of what is normal here",
            "update": f"{still} after {lasted:.1f} s",
            "end": "the track is gone" if c.index < 0 else f"normal again after {lasted:.1f} s",
        }[c.type]
        message = Alert(
            id=c.id,
            type=c.type,
            seq=0,
            run=self.run,
            stream=stream.name,
            track=int(self._windows.track[c.slot]),
            start=c.start,
            end=c.end,
            score=c.score,
            peak=c.peak,
            category=cause.category,
            joints=cause.joints,
            reason=why or reason,
            by=self.by,
            clip=cause.clip,
            moment=cause.moment,
            like=cause.like,
        )
        if c.type == "end":
            self._cause.pop(c.slot, None)
        self._say(message, c.type == "update" and not c.raised)

    def scores(
        self,
        slots: Slots,
        ends: NDArray[np.int64],
        score: Float,
        distance: Float,
        nearest: NDArray[np.intp],
        names: tuple[str, ...],
        unclear: Slots,
    ) -> None:
        """Publish scored windows, one message per stream, for streams that somebody subscribes to. All columns (n,).

        `unclear` (m,) are slots whose windows could not be judged.
        """
        if not self._sink.wanted(b"score/"):
            return
        by_stream: dict[str, list[int]] = {}
        for i, slot in enumerate(slots.tolist()):
            stream = self._windows.stream[slot]
            if stream is not None:
                by_stream.setdefault(stream.name, []).append(i)
        hidden: dict[str, list[int]] = {}
        for slot in unclear.tolist():
            stream = self._windows.stream[slot]
            if stream is not None:
                hidden.setdefault(stream.name, []).append(int(self._windows.track[slot]))
                by_stream.setdefault(stream.name, [])
        for name, rows in by_stream.items():
            if not self._sink.wanted(f"score/{name}".encode()):
                continue
            stream = self._windows.streams[name]
            message = Scores(
                seq=stream.score_seq,
                run=self.run,
                stream=name,
                track=self._windows.track[slots[rows]].tolist(),
                end=ends[rows].tolist(),
                score=score[rows].tolist(),
                distance=distance[rows].tolist(),
                category=[names[g] for g in nearest[rows]],
                by=self.by,
                unclear=hidden.get(name, []),
            )
            stream.score_seq += 1
            self._sink.send(encode_event(message))

    def status(self, status: Status) -> None:
        """Publish the engine's state. The final "offline" status is sent after every alert has been flushed."""
        trouble = self.trouble
        if box := self._outbox:
            box.overdue()
            if status.state == "offline":
                box.flush(DRAIN_S)
            trouble = box.trouble
            status = replace(status, alert_seq=box.published, journal=box.journal.id, replay=self.replay)
        if trouble and status.state == "online":
            status = replace(status, state="degraded", reason=trouble)
        self.status_seq += 1
        self._sink.send(encode_event(status))
