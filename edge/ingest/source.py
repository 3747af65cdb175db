"""Receives pose messages from ZeroMQ sockets, and keeps the ledger that makes every loss visible."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import zmq

from edge.network.endpoint import Endpoint
from edge.network.keys import Keys
from edge.windows import Stream

LEAST, DRAIN = 16, 1024
"""Fewest and most messages read from one socket before the next one's turn. Within these bounds the number adapts, so
that one round keeps the caller busy for LONG_S at most."""
FIRST = 64
LONG_S = 0.25
DRAIN_BYTES = 8 << 20
"""Bytes after which the next socket has its turn, so that large messages wait in the socket, whose queue is bounded."""
RESTART_BEHIND = 1000
"""A sequence number further than this behind the expected one is a restarted publisher, not a late message."""
RESTART_AHEAD = 1_000_000
"""So is one further than this ahead: nine hours at 30 frames a second were not lost, the publisher restarted."""
RESTART_RUN = 10
"""So are this many old numbers in a row, each following the last."""


class Source(Protocol):
    """Yields messages as lists of parts. `receive` waits at most `timeout` seconds, then returns what has come."""

    def receive(self, timeout: float) -> list[list[bytes]]: ...

    def close(self) -> None: ...


class ZmqSource:
    """SUB or PULL sockets, drained in turns. SUB sockets receive the topics that begin with `topic`.

    How many messages are taken at a time depends on how long the caller was busy with the last ones. When it is slow,
    for instance waiting for the engine, messages wait in the socket, and the caller soon returns to its heartbeat and
    to SIGTERM.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: list[Endpoint],
        hwm: int,
        keys: Keys | None = None,
        topic: bytes = b"pose/",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._returned, self._taken, self._most = clock, clock(), 0, FIRST
        self._poller = zmq.Poller()
        self._sockets: list[zmq.Socket[bytes]] = []
        try:
            for endpoint in endpoints:
                socket = endpoint.open(context, hwm=hwm, keys=keys)
                self._sockets.append(socket)
                if endpoint.pattern == "sub":
                    socket.setsockopt(zmq.SUBSCRIBE, topic)
                self._poller.register(socket, zmq.POLLIN)
        except Exception:
            self.close()
            raise

    def receive(self, timeout: float) -> list[list[bytes]]:
        """See `Source`."""
        out: list[list[bytes]] = []
        if self._taken:
            took = self._clock() - self._returned
            if took > LONG_S:
                self._most = max(LEAST, min(self._most, self._taken) // 2)
            elif took < LONG_S / 4 and self._taken >= self._most:
                self._most = min(DRAIN, 2 * self._most)
        self._taken = 0
        for socket, _ in self._poller.poll(max(0, round(timeout * 1000))):
            receive, size, before = socket.recv, 0, len(out)
            try:
                for _ in range(self._most):
                    part = receive(zmq.NOBLOCK)
                    # Asking for RCVMORE costs as much as receiving. A part with a body behind its NUL is a message,
                    # whatever follows it, so only for a part that could be a bare topic is it asked.
                    at = part.find(b"\0")
                    parts = [part]
                    if at < 0 or at == len(part) - 1:
                        while socket.getsockopt(zmq.RCVMORE):
                            parts.append(receive(zmq.NOBLOCK))
                    out.append(parts)
                    size += sum(map(len, parts)) if len(parts) > 1 else len(part)
                    if size > DRAIN_BYTES:
                        break
            except zmq.Again:
                pass
            self._taken = max(self._taken, len(out) - before)
        self._returned = self._clock()
        return out

    def close(self) -> None:
        """Close the sockets; messages that wait in them are lost."""
        for socket in self._sockets:
            socket.close(0)


@dataclass(slots=True)
class Ledger:
    """Counts what came in and what did not: `dropped` by reason, `lost` messages that never arrived."""

    frames: int = 0
    people: int = 0
    lost: int = 0
    out_of_order: int = 0
    restarts: int = 0
    bad_joints: int = 0
    unstamped: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def enter(self, stream: Stream, seq: int, people: int = 0) -> int:
        """Account for one message; returns how many were lost just before it, or −1 if it is late."""
        self.frames += 1
        self.people += people
        expected = stream.next_seq
        if seq == expected:
            stream.next_seq, stream.old_run = seq + 1, 0
            return 0
        missing = seq - expected if expected >= 0 else 0
        if -RESTART_BEHIND <= missing < 0 < seq:
            stream.old_run = stream.old_run + 1 if seq == stream.old_seq + 1 else 1
            stream.old_seq = seq
            if stream.old_run < RESTART_RUN:
                self.out_of_order += 1
                return -1
        stream.old_run = 0
        stream.next_seq = seq + 1
        if missing < 0 or missing > RESTART_AHEAD:
            self.restarts += 1
            return 0
        self.lost += missing
        return missing
