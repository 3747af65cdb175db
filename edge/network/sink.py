"""Where events go: publishing sockets that tell who listens."""

from __future__ import annotations

from typing import Protocol

import zmq

from edge.network.endpoint import Endpoint
from edge.network.keys import Keys


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
