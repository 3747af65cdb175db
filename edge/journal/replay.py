"""Replays alerts from a number on, for subscribers that were away.

subscriber (DEALER) ── replay NUL {v, ask, journal, since} ──► ROUTER, a thread of its own ──► outbox and journal
                    ◄── replay NUL {v, ask, journal, alerts, upto, first, next, began, thinned} ──┘   or {v, ask, error}

An answer holds a bounded batch: every alert on record from `since` up to, not including, `upto`. To get more, ask
again. The thread spends a bounded share of its time on answers, so that no client slows the engine down.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import zmq

from edge.errors import HaadError, WireError
from edge.events import Alert, decode_event
from edge.journal.outbox import Page
from edge.network.endpoint import Endpoint
from edge.network.keys import Keys
from edge.notices import Notices
from edge.wire import COUNT_LIMIT, VERSION, Limits, join, split, unpack

TOPIC = "replay"
BATCH, BATCH_BYTES = 500, 512 << 10
REQUEST_BYTES = 1024
HWM = 64
REST = 3.0
"""The thread rests this many times as long as an answer took, so it uses at most a quarter of a core."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for the alerts of `journal` from number `since` on. The answer repeats `ask`."""

    ask: int
    journal: str
    since: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What is on record from the requested number up to `upto`; the other fields as in `Page`."""

    ask: int
    journal: str
    alerts: tuple[Alert, ...]
    upto: int
    first: int
    next: int
    began: int
    thinned: int
    error: str = ""


def _count(m: dict[str, Any], key: str) -> int:
    value = m.get(key)
    if type(value) is not int or not 0 <= value < COUNT_LIMIT:
        raise WireError("event", f"'{key}' of a replay message is not a count")
    return value


def _text(m: dict[str, Any], key: str) -> str:
    value = m.get(key, "")
    if type(value) is not str or len(value) > 200:
        raise WireError("event", f"'{key}' of a replay message is not a short text")
    return value


def _open(parts: list[bytes], limit: int) -> dict[str, Any]:
    topic, body = split(parts)
    if topic != TOPIC.encode():
        raise WireError("topic", f"topic {topic[:40]!r} is not '{TOPIC}'")
    m = unpack(body, Limits(message_bytes=limit))
    if m.get("v") != VERSION or type(m["v"]) is not int:
        raise WireError("version", "a replay message of another version", why=f"this version reads {VERSION}")
    return m


def encode_request(r: Request) -> bytes:
    """Encode a request as a one-part message."""
    return join(TOPIC, {"v": VERSION, "ask": r.ask, "journal": r.journal, "since": r.since})


def decode_request(parts: list[bytes]) -> Request:
    """Decode a request. Raises WireError; its `reason` labels the counter."""
    m = _open(parts, REQUEST_BYTES)
    return Request(_count(m, "ask"), _text(m, "journal"), _count(m, "since"))


def encode_answer(ask: int, journal: str, page: Page) -> bytes:
    """Encode an answer. Its alerts are the messages that were published, byte for byte."""
    where = {"upto": page.upto, "first": page.first, "next": page.next}
    where |= {"began": page.began, "thinned": page.thinned}
    return join(TOPIC, {"v": VERSION, "ask": ask, "journal": journal, "alerts": page.messages, **where})


def encode_refusal(ask: int, journal: str, error: str) -> bytes:
    """Encode why there is no answer."""
    return join(TOPIC, {"v": VERSION, "ask": ask, "journal": journal, "error": error[:200]})


def decode_answer(parts: list[bytes]) -> Answer:
    """Decode an answer or a refusal. Raises WireError."""
    m = _open(parts, 64 << 20)
    ask, journal, error = _count(m, "ask"), _text(m, "journal"), _text(m, "error")
    if error:
        return Answer(ask, journal, (), 0, 0, 0, 0, 0, error)
    raw = m.get("alerts")
    if not isinstance(raw, list) or not all(isinstance(x, bytes) for x in raw):
        raise WireError("event", "'alerts' of a replay message is not a list of messages")
    alerts = tuple(e for e in (decode_event([x]) for x in raw) if isinstance(e, Alert))
    upto, first, following, began = (_count(m, key) for key in ("upto", "first", "next", "began"))
    thinned = _count(m, "thinned") if "thinned" in m else 0  # earlier engines did not delete updates
    return Answer(ask, journal, alerts, upto, first, following, began, thinned)


class Record(Protocol):
    """The source of the answers: the outbox."""

    def read(self, since: int, count: int, size: int) -> Page: ...


class ReplayServer:
    """Answers on one or more ROUTER sockets, in a thread. `answered` counts requests by result or refusal reason."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: list[Endpoint],
        journal: str,
        record: Record,
        notices: Notices,
        keys: Keys | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._record, self._notices, self._clock = journal, record, notices, clock
        self.answered: Counter[str] = Counter()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._stop = threading.Event()
        try:
            for endpoint in endpoints:
                self._sockets.append(endpoint.open(context, hwm=HWM, keys=keys))
        except Exception:
            self._shut()
            raise
        self.address = self._sockets[0].getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode() if endpoints else ""  # type: ignore[union-attr]
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        while not self._stop.is_set():
            for socket, _ in poller.poll(200):
                began = self._clock()
                with contextlib.suppress(zmq.ZMQError):  # a client that is gone is no concern here
                    self.answer(socket)
                self._stop.wait(min(1.0, REST * (self._clock() - began)))
        self._shut()

    def answer(self, socket: zmq.Socket[bytes]) -> None:
        """Read one request and answer it. An invalid request is counted and gets no answer."""
        who, *parts = socket.recv_multipart(zmq.NOBLOCK)
        try:
            request = decode_request(parts)
        except WireError as e:
            self.answered[e.reason] += 1
            self._notices.say(f"replay request refused: {e}", "replay")
            return
        if request.journal not in ("", self._journal):
            self.answered["journal"] += 1
            reply = encode_refusal(request.ask, request.journal, f"this engine's journal is {self._journal}")
        else:
            try:
                page = self._record.read(request.since, BATCH, BATCH_BYTES)
                reply = encode_answer(request.ask, self._journal, page)
                self.answered["ok"] += 1
            except HaadError as e:
                self.answered["unreadable"] += 1
                reply = encode_refusal(request.ask, self._journal, e.what)
        socket.send_multipart([who, reply], zmq.NOBLOCK)

    def _shut(self) -> None:
        for socket in self._sockets:
            socket.close(200)

    def close(self) -> None:
        """Stop answering."""
        self._stop.set()
        self._thread.join(5)
