"""What comes in: losses accounted for to the message, sockets drained in turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SettingsError
from edge.ingest import source as ingest
from edge.ingest.source import DRAIN, FIRST, LEAST, RESTART_BEHIND, Ledger, ZmqSource
from edge.network.endpoint import Endpoint
from edge.windows import Stream


def account(*numbers: int) -> tuple[Ledger, list[int], Stream]:
    """A ledger after these sequence numbers of one stream, and what `enter` said to each."""
    ledger, stream = Ledger(), Stream("cam1")
    return ledger, [ledger.enter(stream, n) for n in numbers], stream


@pytest.mark.parametrize(
    ("numbers", "said", "lost", "late", "restarts", "expects"),
    [
        ((0, 1, 2), [0, 0, 0], 0, 0, 0, 3),
        ((41, 42), [0, 0], 0, 0, 0, 43),  # joining a stream that runs already is no loss
        ((5, 9, 10, 13), [0, 3, 0, 2], 5, 0, 0, 14),
        ((0, 1, 0, 1), [0, 0, 0, 0], 0, 0, 1, 2),  # began anew at 0
        ((3, 4, 4), [0, 0, -1], 0, 1, 0, 5),  # the same again
        ((10, 13, 11, 14), [0, 2, -1, 0], 2, 1, 0, 15),  # a late one does not set the count back
        ((5000, 3999, 4000), [0, 0, 0], 0, 0, 1, 4001),  # 1002 behind the expected 5001: a restart
        ((5000, 4001, 5001), [0, -1, 0], 0, 1, 0, 5002),  # 1000 behind: late
        ((5000, 1, 3), [0, 0, 1], 1, 0, 1, 4),  # its first messages after the restart were lost before we heard
        ((2**63 - 1,), [0], 0, 0, 0, 2**63),
        ((0, 1_000_001), [0, 10**6], 10**6, 0, 0, 1_000_002),  # just a million: lost
        ((0, 1_000_002), [0, 0], 0, 0, 1, 1_000_003),  # one more: a restart
    ],
)
def test_gaps_restarts_and_late_messages_are_told_apart(
    numbers: tuple[int, ...], said: list[int], lost: int, late: int, restarts: int, expects: int
) -> None:
    assert RESTART_BEHIND == 1000
    ledger, answers, stream = account(*numbers)
    assert answers == said
    assert (ledger.lost, ledger.out_of_order, ledger.restarts) == (lost, late, restarts)
    assert ledger.frames == len(numbers) and stream.next_seq == expects


def test_each_stream_counts_for_itself() -> None:
    ledger, one, two = Ledger(), Stream("cam1"), Stream("cam2")
    for stream, n in ((one, 0), (two, 100), (one, 1), (two, 102)):
        ledger.enter(stream, n)
    assert (ledger.lost, ledger.frames, one.next_seq, two.next_seq) == (1, 4, 2, 103)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.sets(st.integers(0, 900), min_size=1))
def test_what_came_and_what_was_lost_add_up_to_what_was_sent(kept: set[int]) -> None:
    ledger, _, _ = account(*sorted(kept))
    assert ledger.frames + ledger.lost == max(kept) - min(kept) + 1
    assert ledger.out_of_order == ledger.restarts == 0


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context
        context.destroy(0)


def gather(source: ZmqSource, count: int) -> list[list[bytes]]:
    got: list[list[bytes]] = []
    while len(got) < count:
        batch = source.receive(5)
        assert batch, f"nothing for 5 s after {len(got)} messages"
        got += batch
    return got


def test_messages_come_in_order_and_whole_from_every_socket(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    endpoints = [Endpoint.parse(t) for t in ("pull+bind:inproc://a", f"pull+bind:ipc://{tmp_path}/b")]
    source = ZmqSource(context, endpoints, hwm=1000)
    senders = [Endpoint("push", "connect", e.address).open(context, hwm=1000) for e in endpoints]
    for i in range(50):
        for k, sender in enumerate(senders):
            sender.send_multipart([b"pose/%d" % k, b"%d" % i] if i % 2 else [b"pose/%d\0%d" % (k, i)])
    got = gather(source, 100)
    for k in (b"pose/0", b"pose/1"):
        mine = [parts for parts in got if parts[0].startswith(k)]
        assert [p[1] if len(p) == 2 else p[0].split(b"\0")[1] for p in mine] == [b"%d" % i for i in range(50)]
    assert source.receive(0) == []
    source.close()


def test_a_complete_part_is_a_message_and_what_could_be_a_topic_takes_its_parts_along(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    endpoint = Endpoint.parse("pull+bind:inproc://parts")
    source = ZmqSource(context, [endpoint], hwm=1000)
    sender = Endpoint("push", "connect", endpoint.address).open(context, hwm=1000)
    for parts in ([b"pose/a\0x", b"more"], [b"pose/b\0", b"x"], [b"pose/c", b"x\0y"], [b"d", b"e\0f", b"g"], [b""]):
        sender.send_multipart(parts)
    taken = [[b"pose/a\0x"], [b"more"], [b"pose/b\0", b"x"], [b"pose/c", b"x\0y"], [b"d", b"e\0f", b"g"], [b""]]
    assert gather(source, 6) == taken
    source.close()


def test_a_flood_on_one_socket_does_not_keep_the_other_waiting(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    endpoints = [Endpoint.parse(f"pull+bind:inproc://{name}") for name in ("loud", "quiet")]
    now = [0.0]
    source = ZmqSource(context, endpoints, hwm=10_000, clock=lambda: now[0])
    loud, quiet = (Endpoint("push", "connect", e.address).open(context, hwm=10_000) for e in endpoints)
    for _ in range(6 * DRAIN):
        loud.send(b"pose/loud\0")
    quiet.send(b"pose/quiet\0")
    first = source.receive(5)
    assert first.count([b"pose/loud\0"]) == FIRST and [b"pose/quiet\0"] in first

    def taken_after(seconds: float) -> int:
        now[0] += seconds
        return len(source.receive(5))

    # As much as the caller is done with at once; less when it was busy for long.
    assert [taken_after(s) for s in (0.01, 0.1, 0.01, 0.01, 0.01, 0.01)] == [128, 128, 256, 512, DRAIN, DRAIN]
    assert [taken_after(s) for s in (0.1, 0.3, 5, 5, 5, 5, 5, 5, 5, 0.01)] == [
        *(DRAIN, 512, 256, 128, 64, 32, LEAST, LEAST, LEAST),
        2 * LEAST,
    ]
    source.close()


def test_few_messages_that_took_long_are_fewer_the_next_time(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    endpoint, now = Endpoint.parse("pull+bind:inproc://slow"), [0.0]
    source = ZmqSource(context, [endpoint], hwm=1000, clock=lambda: now[0])
    sender = Endpoint("push", "connect", endpoint.address).open(context, hwm=1000)
    for _ in range(40):
        sender.send(b"pose/a\0")
    assert len(source.receive(5)) == 40
    for _ in range(100):
        sender.send(b"pose/a\0")
    now[0] += 1
    assert len(source.receive(5)) == 20
    now[0] += 1
    assert [len(source.receive(5)) for _ in range(3)] == [16, 32, 32]
    for _ in range(20):  # one at a time is no sign that many would be done with as soon
        sender.send(b"pose/a\0")
        assert len(source.receive(5)) == 1
    assert source.receive(0) == []
    now[0] += 100  # nothing was taken: it was busy with nothing
    for _ in range(100):
        sender.send(b"pose/a\0")
    assert len(source.receive(5)) == 64
    source.close()


def test_few_from_each_of_many_sockets_are_no_sign_that_one_could_send_more(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    endpoints = [Endpoint.parse(f"pull+bind:inproc://{name}") for name in "ab"]
    source = ZmqSource(context, endpoints, hwm=1000, clock=lambda: 0.0)
    senders = [Endpoint("push", "connect", e.address).open(context, hwm=1000) for e in endpoints]
    for sender in senders:
        for _ in range(40):
            sender.send(b"pose/a\0")
    assert len(source.receive(5)) == 80
    for _ in range(100):
        senders[0].send(b"pose/a\0")
    assert len(source.receive(5)) == FIRST
    source.close()


def test_it_waits_as_many_milliseconds_as_it_is_told_seconds(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    source, asked = ZmqSource(context, [], hwm=1), []
    source._poller = SimpleNamespace(poll=lambda most: asked.append(most) or [])  # type: ignore[assignment]
    assert [source.receive(s) for s in (0.25, 0.0, -1.0)] == [[], [], []] and asked == [250, 0, 0]


@pytest.mark.parametrize("parts", [[b"pose/a\0" + b"x" * 50], [b"pose/a", b"x" * 50]], ids=["one part", "two"])
def test_large_messages_wait_in_the_socket(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch, parts: list[bytes]
) -> None:
    monkeypatch.setattr(ingest, "DRAIN_BYTES", 100)
    source = ZmqSource(context, [Endpoint.parse("pull+bind:inproc://large")], hwm=100)
    sender = Endpoint.parse("push+connect:inproc://large").open(context, hwm=100)
    for _ in range(5):
        sender.send_multipart(parts)
    assert [len(source.receive(5)) for _ in range(3)] == [2, 2, 1]
    source.close()


def test_a_subscriber_takes_pose_topics_only(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    source = ZmqSource(context, [Endpoint.parse("sub+bind:inproc://poses")], hwm=100)
    with Endpoint.parse("pub+connect:inproc://poses").open(context, hwm=100) as pub:
        for _ in range(500):  # a bound SUB socket sends its subscription when its owner next looks at it
            if source.receive(0) or pub.poll(10):
                break
        assert pub.recv(zmq.NOBLOCK) == b"\1pose/"
        for topic in (b"alert/a", b"pos", b"pose/a", b"status", b"pose/b"):
            pub.send(topic + b"\0x")
        assert gather(source, 2) == [[b"pose/a\0x"], [b"pose/b\0x"]]
    assert source.receive(0) == []
    source.close()


def test_an_endpoint_that_cannot_be_opened_closes_those_before_it(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    made: list[zmq.Socket[bytes]] = []

    def socket(kind: int) -> zmq.Socket[bytes]:
        made.append(context.socket(kind))
        return made[-1]

    good, bad = (Endpoint.parse(f"pull+bind:{a}") for a in ("inproc://a", "ipc:///nonexistent/folder/b"))
    with pytest.raises(SettingsError, match="nonexistent"):
        ZmqSource(SimpleNamespace(socket=socket), [good, bad], hwm=1)  # type: ignore[arg-type]
    assert [s.closed for s in made] == [True, True]


def test_a_number_far_ahead_is_a_restart_and_not_a_loss() -> None:
    ledger, stream = Ledger(), Stream("cam")
    for seq in (0, 2**62 - 1, 0, 2**62 - 1, 0, 5):
        ledger.enter(stream, seq)
    assert (ledger.lost, ledger.restarts) == (4, 4)


def test_a_restart_shortly_behind_whose_first_message_was_lost_is_found_out() -> None:
    ledger, stream = Ledger(), Stream("cam")
    for seq in range(400):
        ledger.enter(stream, seq)
    for seq in [*range(1, 100), *range(150, 300)]:
        ledger.enter(stream, seq)
    assert ledger.restarts == 1 and ledger.lost == 50 and ledger.out_of_order == 9


def test_a_run_of_old_messages_is_over_when_newer_ones_come() -> None:
    for newer in (400, 405):
        ledger, said, _ = account(399, *range(1, 10), newer, 10)
        assert said[-1] == -1 and (ledger.restarts, ledger.out_of_order) == (0, 10)


def test_scattered_late_messages_are_no_restart() -> None:
    ledger, stream = Ledger(), Stream("cam")
    for seq in range(400):
        ledger.enter(stream, seq)
        if seq % 20 == 19:
            ledger.enter(stream, seq - 5)
    assert ledger.restarts == 0 and ledger.out_of_order == 20


def test_two_cameras_of_one_name_are_late_without_end_and_no_restart() -> None:
    ledger, stream = Ledger(), Stream("cam")
    for k in range(100):
        ledger.enter(stream, 500 + k)
        ledger.enter(stream, 100 + k)
    assert (ledger.restarts, ledger.out_of_order, ledger.lost) == (0, 100, 0)


def test_old_messages_in_any_order_are_late_and_no_restart() -> None:
    ledger, stream = Ledger(), Stream("cam")
    for seq in [400, *range(300, 0, -3)]:
        ledger.enter(stream, seq)
    assert (ledger.restarts, ledger.out_of_order) == (0, 100)
