"""Publishes events on sockets that report who subscribes."""

from __future__ import annotations

from typing import Protocol

import zmq

from edge.network.endpoint import Endpoint
from edge.network.keys import Keys


class Sink(Protocol):
    """What events are sent to."""

    def send(self, message: bytes) -> None: ...

    def newcomers(self) -> bool:
        """Whether anybody subscribed since the last call."""

    def wanted(self, topic: bytes) -> bool:
        """Whether anybody subscribes to the topic, or to one that begins with it."""

    def close(self) -> None: ...


class ZmqSink:
    """XPUB sockets: like PUB, but they report subscriptions, so that scores nobody wants are never encoded."""

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
        """Publish a message. A subscriber that does not keep up misses some, and sees that by `seq`."""
        for socket in self._sockets:
            socket.send(message)

    def newcomers(self) -> bool:
        """See `Sink`. With XPUB_VERBOSE every subscription is reported, but only the last unsubscription of a topic."""
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
        """Close the sockets; messages already sent have a second to leave."""
        for socket in self._sockets:
            socket.close(1000)
