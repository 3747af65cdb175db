"""What the engine says to its subscribers: alerts, scores and status, each numbered without a gap."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.alerts import Change, Sink
from edge.skeleton import Float
from edge.windows import SECOND, Slots, Windows
from edge.wire import Alert, Provenance, Scores, Status, encode_event


@dataclass(frozen=True, slots=True)
class Cause:
    """The nearest normal category and its clip that came nearest; the joints and the moment (ns) that differ most."""

    category: str
    clip: str = ""
    joints: tuple[str, ...] = ()
    moment: tuple[int, ...] = ()


NONE = Cause("")


class Announcer:
    """Turns what the loop found into messages. `run` names this process's life; `by` what judged."""

    def __init__(self, sink: Sink, windows: Windows) -> None:
        self._sink, self._windows = sink, windows
        self.run = uuid.uuid4().hex[:12]
        self.by = Provenance("", "", "")
        self.alert_seq = self.status_seq = 0
        self._cause: dict[int, Cause] = {}

    def cause(self, slot: int, cause: Cause) -> None:
        """What a slot's alert, until it ends, is said to differ from."""
        self._cause[slot] = cause

    def alert(self, c: Change) -> None:
        """Publish one change of an alert."""
        stream = self._windows.stream[c.slot]
        assert stream is not None, "an alert ends before its track is released"
        cause = self._cause.get(c.slot, NONE)
        lasted = (c.end - c.start) / SECOND
        reason = {
            "new": f"unlike '{cause.category}', the nearest of what is normal here",
            "update": f"still abnormal after {lasted:.1f} s",
            "end": "the track is gone" if c.index < 0 else f"normal again after {lasted:.1f} s",
        }[c.type]
        message = Alert(
            id=c.id,
            type=c.type,
            seq=self.alert_seq,
            run=self.run,
            stream=stream.name,
            track=int(self._windows.track[c.slot]),
            start=c.start,
            end=c.end,
            score=c.score,
            peak=c.peak,
            category=cause.category,
            joints=cause.joints,
            reason=reason,
            by=self.by,
            clip=cause.clip,
            moment=cause.moment,
        )
        self.alert_seq += 1
        if c.type == "end":
            self._cause.pop(c.slot, None)
        self._sink.send(encode_event(message))

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
        """Publish scored windows, a message per stream, where somebody listens. All columns (n,).

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
        """Publish the engine's state."""
        self.status_seq += 1
        self._sink.send(encode_event(status))
