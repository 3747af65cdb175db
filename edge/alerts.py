"""From scores to alerts: hysteresis per track, and the sink that publishes what is said.

A track's alert begins when its score stays at or above the threshold for `raise_after` windows in a row, and ends when
it stays below `release · threshold` for `clear_after`, or when the track is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from edge.endpoint import Endpoint
from edge.keys import Keys
from edge.skeleton import Float
from edge.windows import SECOND, Slots

Label = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to say about a slot; `index` is its place in the batch, −1 when no window is at hand."""

    type: Literal["new", "update", "end"]
    slot: int
    index: int
    id: str
    start: int
    end: int
    score: float
    peak: float


class AlertBook:
    """The state of every slot's alert, as columns."""

    def __init__(
        self,
        slots: int,
        *,
        threshold: float,
        release: float,
        raise_after: int,
        clear_after: int,
        update_every: float,
    ) -> None:
        self.threshold, self.release = threshold, threshold * release
        self.raise_after, self.clear_after = raise_after, clear_after
        self.update_every = round(update_every * SECOND)
        self.raised = np.zeros(slots, bool)
        self._above = np.zeros(slots, np.int32)
        self._below = np.zeros(slots, np.int32)
        self._start = np.zeros(slots, np.int64)
        self._end = np.zeros(slots, np.int64)
        self._said = np.zeros(slots, np.int64)
        self._peak = np.zeros(slots, np.float32)
        self._score = np.zeros(slots, np.float32)
        self._id: dict[int, str] = {}

    def update(self, slots: Slots, end: NDArray[np.int64], score: Float, label: Label) -> list[Change]:
        """Take scored windows in order of time; `label(slot)` is what an alert's id is derived from, beside its start.

        A slot may occur more than once: its windows are taken one after the other.
        """
        changes: list[Change] = []
        left = np.arange(len(slots))
        while len(left):
            _, first = np.unique(slots[left], return_index=True)
            now = left[np.sort(first)]
            changes += self._update(now, slots[now], end[now], score[now], label)
            left = np.setdiff1d(left, now)
        return changes

    def _update(
        self, index: NDArray[np.intp], slots: Slots, end: NDArray[np.int64], score: Float, label: Label
    ) -> list[Change]:
        high, low = score >= self.threshold, score < self.release
        started = high & (self._above[slots] == 0) & ~self.raised[slots]
        self._start[slots[started]] = end[started]
        self._peak[slots[started]] = 0
        self._above[slots] = np.where(high, self._above[slots] + 1, 0)
        self._below[slots] = np.where(low, self._below[slots] + 1, 0)
        self._peak[slots] = np.maximum(self._peak[slots], score)
        self._end[slots], self._score[slots] = end, score

        raised = self.raised[slots]
        new = ~raised & (self._above[slots] >= self.raise_after)
        over = raised & (self._below[slots] >= self.clear_after)
        more = raised & ~over & (end - self._said[slots] >= self.update_every)
        out: list[Change] = []
        for i in np.flatnonzero(new | over | more):
            slot = int(slots[i])
            if new[i]:
                text = f"{label(slot)}|{int(self._start[slot])}"
                self._id[slot] = hashlib.blake2s(text.encode(), digest_size=8).hexdigest()
                self.raised[slot] = True
            self._said[slot] = end[i]
            out.append(self._change("new" if new[i] else "end" if over[i] else "update", slot, int(index[i])))
            if over[i]:
                self._clear(slot)
        return out

    def close(self, slots: list[int]) -> list[Change]:
        """The slots' tracks are gone: end their alerts and forget their state."""
        out = [self._change("end", s, -1) for s in slots if self.raised[s]]
        for s in slots:
            self._clear(s)
        return out

    def _change(self, kind: Literal["new", "update", "end"], slot: int, index: int) -> Change:
        return Change(
            kind,
            slot,
            index,
            self._id[slot],
            int(self._start[slot]),
            int(self._end[slot]),
            float(self._score[slot]),
            float(self._peak[slot]),
        )

    def _clear(self, slot: int) -> None:
        self.raised[slot] = False
        self._above[slot] = self._below[slot] = 0
        self._id.pop(slot, None)


class Sink(Protocol):
    """Where events go."""

    def send(self, message: bytes) -> None: ...

    def newcomers(self) -> bool:
        """Whether somebody subscribed since the last call."""

    def wanted(self, topic: bytes) -> bool:
        """Whether somebody may hear the topic, or one that begins with it."""

    def close(self) -> None: ...


class ZmqSink:
    """XPUB sockets: like PUB, but they tell who listens, so that unheard scores are never encoded."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoints: list[Endpoint], hwm: int, keys: Keys | None = None
    ) -> None:
        self._sockets: list[zmq.Socket[bytes]] = []
        self._topics: list[set[bytes]] = []
        try:
            for endpoint in endpoints:
                socket = endpoint.open(context, hwm=hwm, keys=keys)
                socket.setsockopt(zmq.XPUB_VERBOSE, 1)
                self._sockets.append(socket)
                self._topics.append(set())
        except Exception:
            self.close()
            raise

    def send(self, message: bytes) -> None:
        """Publish; a subscriber that does not keep up misses messages, which `seq` shows it."""
        for socket in self._sockets:
            socket.send(message)

    def newcomers(self) -> bool:
        """See `Sink`. With XPUB_VERBOSE each subscription is told, an unsubscription only when it was the last."""
        new = False
        for socket, topics in zip(self._sockets, self._topics, strict=True):
            try:
                while True:
                    note = socket.recv(zmq.NOBLOCK)
                    if note[:1] == b"\1":
                        topics.add(note[1:])
                        new = True
                    elif note[:1] == b"\0":
                        topics.discard(note[1:])
            except zmq.Again:
                pass
        return new

    def wanted(self, topic: bytes) -> bool:
        """See `Sink`."""
        return any(topic.startswith(prefix) or prefix.startswith(topic) for topics in self._topics for prefix in topics)

    def close(self) -> None:
        """Close the sockets after what was sent has had a second to leave."""
        for socket in self._sockets:
            socket.close(1000)
