"""What an engine is to its subscribers, in the hands of a test: a publishing end and a real replay server."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import zmq

from edge.client import AlertSubscriber
from edge.events import Alert, Provenance, Status, encode_event
from edge.journal.outbox import Page
from edge.journal.replay import ReplayServer
from edge.network.endpoint import Endpoint
from edge.notices import Notices

BY = Provenance("m", "e", "s")
STATUS = Status(0, "r1", "online", "", 1.0, 0, 0, 0, 0, 0, 0, BY)
ALERT = Alert("i", "new", 0, "r1", "cam1", 5, 1, 2, 1.5, 1.5, "walk", (), "", BY)


class Station:
    """What an engine is to its subscribers: published alerts on record, of which the test sends what it likes."""

    def __init__(self, folder: Path, journal: str = "j1") -> None:
        self.folder, self.journal, self.run = folder, journal, "r1"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.record: list[Alert] = []
        self.first = self.began = self.thinned = 0
        self.replay: ReplayServer | None = None
        self.open()

    def open(self) -> None:
        self.pub = Endpoint.parse(f"pub+bind:ipc://{self.folder}/out").open(self.context, hwm=1000)
        self.pub.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.serve()

    def serve(self) -> None:
        where = [Endpoint.parse(f"router+bind:ipc://{self.folder}/replay")]
        self.replay = ReplayServer(self.context, where, self.journal, self, Notices(io.StringIO()))

    def read(self, since: int, count: int, size: int) -> Page:
        first = max(since, self.first)
        found = self.record[first : first + 4]  # small batches, so that one answer is never enough
        upto = first + len(found) if found else len(self.record)
        kept = [encode_event(a) for a in found if a.seq >= self.thinned or a.type != "update"]
        return Page(kept, upto, self.first, len(self.record), self.began, self.thinned)

    def joined(self, count: int = 2, again: AlertSubscriber | None = None) -> None:
        """Until `count` subscriptions have come; `again` subscribes again while it is used."""
        while count:
            while again and not self.pub.poll(0):
                assert again.receive(0.01) is None
            assert self.pub.poll(10_000)
            count -= self.pub.recv()[:1] == b"\1"

    def alert(self, sent: bool = True, **changes: object) -> Alert:
        """The next alert; on record, and published unless it is to be lost."""
        a = replace(ALERT, seq=len(self.record), run=self.run, journal=self.journal, **changes)  # type: ignore[arg-type]
        self.record.append(a)
        if sent:
            self.pub.send(encode_event(a))
        return a

    def status(self, **changes: object) -> None:
        address = self.replay.address if self.replay else ""
        s = replace(STATUS, run=self.run, journal=self.journal, alert_seq=len(self.record), replay=address)
        self.pub.send(encode_event(replace(s, **changes)))  # type: ignore[arg-type]

    def restart(self, run: str, journal: str = "j1") -> None:
        self.close()
        self.context = zmq.Context()
        self.run, self.journal, self.began = run, journal, len(self.record)
        self.open()

    def close_sockets(self) -> None:
        self.pub.close(0)
        if self.replay:
            self.replay.close()
        self.replay = None

    def close(self) -> None:
        self.close_sockets()
        self.context.destroy(0)


def subscribe(station: Station, **options: object) -> AlertSubscriber:
    options = {"topics": ["alert"], **options}
    return AlertSubscriber(f"sub+connect:ipc://{station.folder}/out", **options)  # type: ignore[arg-type]


def hear(subscriber: AlertSubscriber, count: int) -> list[int]:
    """The numbers of the next alerts."""
    out = []
    for _ in range(count):
        event = subscriber.receive(10)
        assert isinstance(event, Alert), (event, out, list(subscriber.gaps))
        out.append(event.seq)
    return out
