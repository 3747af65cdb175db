"""The replay socket: bounded answers, refusals that are counted, and never a word with a stranger."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from edge.errors import WireError
from edge.events import Alert, Provenance, encode_event
from edge.journal.outbox import Page
from edge.journal.replay import (
    BATCH,
    ReplayServer,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_refusal,
    encode_request,
)
from edge.journal.store import JournalError
from edge.network.endpoint import Endpoint
from edge.notices import Notices
from edge.wire import join

ALERT = Alert("i", "new", 4, "r", "cam1", 5, 1, 2, 1.5, 1.5, "walk", ("head",), "x", Provenance("m", "e", "s"), "j1")


class Shelf:
    """A record with `held` messages; reading may fail."""

    def __init__(self) -> None:
        self.held, self.asked, self.broken = [encode_event(ALERT)], [], False  # type: ignore[var-annotated]

    def read(self, since: int, count: int, size: int) -> Page:
        self.asked.append((since, count))
        if self.broken:
            raise JournalError("journal: cannot read", damaged=True)
        return Page(self.held, 5, 4, 5, 2, 3)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context
        context.destroy(0)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def server(context: zmq.Context[zmq.Socket[bytes]], shelf: Shelf, tmp_path: Path) -> Iterator[ReplayServer]:
    where = [Endpoint.parse(f"router+bind:ipc://{tmp_path}/r")]
    server = ReplayServer(context, where, "j1", shelf, Notices(io.StringIO()), clock=lambda: 0.0)
    yield server
    server.close()


@pytest.fixture
def asker(context: zmq.Context[zmq.Socket[bytes]], server: ReplayServer) -> zmq.Socket[bytes]:
    return Endpoint.parse(f"dealer+connect:{server.address}").open(context, hwm=1000)


def answer(asker: zmq.Socket[bytes]) -> list[bytes]:
    assert asker.poll(10_000)
    return asker.recv_multipart()


def test_what_was_published_comes_back_byte_for_byte(asker: zmq.Socket[bytes], shelf: Shelf) -> None:
    asker.send(encode_request(Request(7, "j1", 4)))
    raw = answer(asker)
    got = decode_answer(raw)
    assert (got.ask, got.journal, got.alerts) == (7, "j1", (ALERT,))
    assert (got.upto, got.first, got.next, got.began, got.thinned) == (5, 4, 5, 2, 3)
    assert msgpack.unpackb(raw[0].split(b"\0", 1)[1])["alerts"] == shelf.held and shelf.asked == [(4, BATCH)]


def test_another_journal_and_an_unreadable_one_are_said(
    asker: zmq.Socket[bytes], server: ReplayServer, shelf: Shelf
) -> None:
    asker.send(encode_request(Request(1, "j9", 0)))
    assert "j1" in decode_answer(answer(asker)).error and shelf.asked == []
    shelf.broken = True
    asker.send(encode_request(Request(2, "j1", 0)))
    assert "cannot read" in decode_answer(answer(asker)).error
    assert dict(server.answered) == {"journal": 1, "unreadable": 1}


GOOD = {"v": 1, "ask": 1, "journal": "j1", "since": 0}
HOSTILE: dict[str, tuple[list[bytes], str]] = {
    "empty": ([b""], "topic"),
    "another topic": ([join("alert", GOOD)], "topic"),
    "three parts": ([b"replay", b"x", b"y"], "parts"),
    "not msgpack": ([b"replay\0\xc1"], "msgpack"),
    "a list": ([b"replay\0" + msgpack.packb([1])], "msgpack"),
    "deeply nested": ([b"replay\0" + b"\x91" * 900], "msgpack"),
    "a huge array claimed": ([b"replay\0\xdd\xff\xff\xff\xff"], "msgpack"),
    "too large": ([join("replay", {**GOOD, "x": "y" * 2000})], "too_large"),
    "version 2": ([join("replay", {**GOOD, "v": 2})], "version"),
    "version true": ([join("replay", {**GOOD, "v": True})], "version"),
    "since negative": ([join("replay", {**GOOD, "since": -1})], "event"),
    "since a text": ([join("replay", {**GOOD, "since": "0"})], "event"),
    "since too large": ([join("replay", {**GOOD, "since": 2**63})], "event"),
    "since missing": ([join("replay", {k: v for k, v in GOOD.items() if k != "since"})], "event"),
    "ask a float": ([join("replay", {**GOOD, "ask": 1.0})], "event"),
    "journal a number": ([join("replay", {**GOOD, "journal": 3})], "event"),
    "journal too long": ([join("replay", {**GOOD, "journal": "x" * 300})], "event"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_counted_and_the_next_one_answered(
    asker: zmq.Socket[bytes], server: ReplayServer, shelf: Shelf, name: str
) -> None:
    parts, reason = HOSTILE[name]
    with pytest.raises(WireError) as e:
        decode_request(parts)
    assert e.value.reason == reason
    asker.send_multipart(parts)
    asker.send(encode_request(Request(3, "j1", 0)))
    assert decode_answer(answer(asker)).ask == 3
    assert dict(server.answered) == {reason: 1, "ok": 1} and len(shelf.asked) == 1


def test_an_engine_of_before_thinned_nothing() -> None:
    counts = {"upto": 5, "first": 4, "next": 5, "began": 2}
    found = decode_answer([join("replay", {"v": 1, "ask": 1, "journal": "j1", "alerts": [], **counts})])
    assert (found.began, found.thinned) == (2, 0)


def test_who_knows_no_journal_yet_is_told_which_it_is(asker: zmq.Socket[bytes], server: ReplayServer) -> None:
    asker.send(encode_request(Request(1, "", 0)))
    assert decode_answer(answer(asker)).journal == "j1" and server.answered == {"ok": 1}
    server.close()
    assert [s.closed for s in server._sockets] == [True]


def test_a_long_reason_is_cut_to_what_an_asker_takes() -> None:
    assert decode_answer([encode_refusal(1, "j1", "x" * 500)]).error == "x" * 200


def test_an_answer_that_is_none_is_refused() -> None:
    whole = encode_answer(1, "j1", Page([encode_event(ALERT)], 5, 4, 5, 2))
    for parts in ([whole[:-2]], [join("replay", {"v": 1, "ask": 1, "journal": "j1", "alerts": "x"})], [b"x"]):
        with pytest.raises(WireError):
            decode_answer(parts)
    with pytest.raises(WireError):
        decode_answer([encode_answer(1, "j1", Page([b"alert/x\0\x80"], 5, 4, 5, 2))])


def test_the_thread_rests_three_times_as_long_as_it_works(
    context: zmq.Context[zmq.Socket[bytes]], shelf: Shelf, tmp_path: Path
) -> None:
    now = iter(range(100))
    rested: list[float] = []
    server = ReplayServer(
        context,
        [Endpoint.parse(f"router+bind:ipc://{tmp_path}/q")],
        "j1",
        shelf,
        Notices(io.StringIO()),
        clock=lambda: next(now) / 10,
    )
    real = server._stop.wait
    server._stop.wait = lambda t: rested.append(t) or real(0)  # type: ignore[method-assign, func-returns-value]
    socket = Endpoint.parse(f"dealer+connect:{server.address}").open(context, hwm=10)
    for n in range(3):
        socket.send(encode_request(Request(n, "", 0)))
        answer(socket)
    server.close()
    assert rested == pytest.approx([0.3, 0.3, 0.3])
