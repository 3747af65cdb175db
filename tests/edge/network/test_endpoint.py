"""Endpoints: the grammar, who can reach an address, and sockets that cannot be opened."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq

from edge.errors import SettingsError
from edge.network.endpoint import LONGEST_MS, Endpoint, milliseconds


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context
        context.destroy(0)


@pytest.mark.parametrize("pattern", ["sub", "pull", "pub", "push"])
@pytest.mark.parametrize("mode", ["bind", "connect"])
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5555", "ipc:///run/haad/poses", "inproc://x", "tcp://*:1"])
def test_the_grammar_is_pattern_mode_address(pattern: str, mode: str, address: str) -> None:
    text = f"{pattern}+{mode}:{address}"
    assert Endpoint.parse(f" {text}\n") == Endpoint(pattern, mode, address)
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "tcp://127.0.0.1:5555", "sub:tcp://127.0.0.1:5555", "sub+bind:127.0.0.1:5555", "sub+listen:tcp://a:1",
        "req+bind:tcp://127.0.0.1:5555", "SUB+bind:tcp://127.0.0.1:5555", "sub+bind:udp://127.0.0.1:5555",
        "sub+bind:tcp://", "sub+bind:tcp://a :1", "sub+bind:tcp://a:1 pub+bind:tcp://a:2", "sub+bind:ipc:/x",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_text_and_the_form(text: str) -> None:
    with pytest.raises(SettingsError, match="pattern") as e:
        Endpoint.parse(text)
    assert repr(text)[:100] in str(e.value) and "bind|connect:address" in str(e.value)


def test_a_pattern_of_the_wrong_direction_is_refused_with_the_right_ones() -> None:
    with pytest.raises(SettingsError, match=r"sub or pull.*for example sub"):
        Endpoint.parse("pub+bind:tcp://127.0.0.1:1", ("sub", "pull"))


LOCAL = ["tcp://127.0.0.1:5", "tcp://127.9.9.9:*", "tcp://localhost:5", "tcp://[::1]:5", "ipc:///x", "inproc://x"]
REMOTE = [
    "tcp://*:5", "tcp://0.0.0.0:5", "tcp://[::]:5", "tcp://192.168.1.2:5", "tcp://eth0:5", "tcp://camera.local:5",
    "tcp://localhost.example.org:5", "tcp://127.0.0.1.example.org:5", "tcp://127.0.0.1:0;10.0.0.1:5",
]  # fmt: skip


@pytest.mark.parametrize("address", LOCAL)
def test_addresses_of_this_host_need_no_permission(address: str) -> None:
    endpoint = Endpoint("sub", "bind", address)
    assert endpoint.local
    endpoint.check_reach(False)


@pytest.mark.parametrize("address", REMOTE)
@pytest.mark.parametrize("mode", ["bind", "connect"])
def test_addresses_that_others_reach_are_refused_with_what_to_do(address: str, mode: str) -> None:
    endpoint = Endpoint("pub", mode, address)
    assert not endpoint.local
    with pytest.raises(SettingsError) as e:
        endpoint.check_reach(False)
    for words in (str(endpoint), "127.0.0.1", "--allow-remote", "without encryption"):
        assert words in str(e.value)
    endpoint.check_reach(True)


def test_a_message_goes_from_end_to_end(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    for address in ("inproc://line", f"ipc://{tmp_path}/s"):
        pull = Endpoint.parse(f"pull+bind:{address}")
        inlet = pull.open(context, hwm=7)
        with inlet, Endpoint("push", "connect", pull.address).open(context, hwm=7) as outlet:
            outlet.send(b"hello")
            assert inlet.poll(5000) and inlet.recv() == b"hello"
            assert (inlet.get_hwm(), inlet.get(zmq.LINGER), inlet.get(zmq.MAXMSGSIZE)) == (7, 0, 16 << 20)


@pytest.mark.parametrize(
    ("seconds", "waits"),
    [(0.0015, 2), (10, 10_000), (-1, 0), (-math.inf, 0), (math.nan, 0), (1e12, LONGEST_MS), (math.inf, LONGEST_MS)],
)
def test_any_number_of_seconds_is_a_wait_that_zeromq_takes(seconds: float, waits: int) -> None:
    assert milliseconds(seconds) == waits


def test_pub_tells_its_owner_who_subscribes(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with Endpoint.parse("pub+bind:inproc://news").open(context, hwm=1) as pub, context.socket(zmq.SUB) as sub:
        sub.connect("inproc://news")
        sub.subscribe("alert/")
        assert pub.poll(5000) and pub.recv() == b"\1alert/"


@pytest.mark.parametrize("loopback", ["127.0.0.1", "[::1]"])
def test_a_port_in_use_is_refused_with_the_address_and_what_to_do(
    context: zmq.Context[zmq.Socket[bytes]], loopback: str
) -> None:
    try:
        first = Endpoint.parse(f"pub+bind:tcp://{loopback}:*").open(context, hwm=1)
    except SettingsError:
        if loopback == "127.0.0.1" or not _no_ipv6():
            raise
        pytest.skip("this machine has no IPv6 loopback")
    with first:
        address = first.get_string(zmq.LAST_ENDPOINT)
        with pytest.raises(SettingsError) as e:
            Endpoint.parse(f"sub+bind:{address}").open(context, hwm=1)
    assert f"cannot bind {address}" in str(e.value) and "another engine or record" in str(e.value)


def _no_ipv6() -> bool:
    import socket

    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    "text",
    [
        "sub+bind:ipc:///nonexistent/folder/s",
        f"sub+bind:ipc:///tmp/{'x' * 200}", "sub+bind:tcp://203.0.113.7:1",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_opened_is_refused_and_leaks_no_socket(
    context: zmq.Context[zmq.Socket[bytes]], text: str
) -> None:
    made: list[zmq.Socket[bytes]] = []

    def socket(kind: int) -> zmq.Socket[bytes]:
        made.append(context.socket(kind))
        return made[-1]

    with pytest.raises(SettingsError) as e:
        Endpoint.parse(text).open(SimpleNamespace(socket=socket), hwm=1)  # type: ignore[arg-type]
    assert text.partition(":")[2][:60] in str(e.value) and "check the address" in str(e.value)
    assert [s.closed for s in made] == [True]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "*", "camera.local"])
def test_a_tcp_address_must_end_in_a_port(host: str) -> None:
    for port in ("0", "65536", "99999", "http", "-1", "²"):
        with pytest.raises(SettingsError, match=f"'{port}' is not a port"):
            Endpoint.parse(f"sub+bind:tcp://{host}:{port}")
    for text in (host, f"{host}:"):
        with pytest.raises(SettingsError, match="the port is missing"):
            Endpoint.parse(f"sub+connect:tcp://{text}")
    for port in ("1", "65535", "*"):
        assert Endpoint.parse(f"sub+bind:tcp://{host}:{port}").address.endswith(f":{port}")


def test_an_ipc_path_that_is_served_is_not_taken_over(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    endpoint = Endpoint.parse(f"pull+bind:ipc://{tmp_path}/in")
    first = endpoint.open(context, hwm=7)
    try:
        with pytest.raises(SettingsError, match=r"cannot bind .*in use"):
            endpoint.open(context, hwm=7)
    finally:
        first.close(0)
        context.term()
    # What a killed engine left behind is nobody's.
    context = zmq.Context()
    endpoint.open(context, hwm=7).close(0)
    context.term()
