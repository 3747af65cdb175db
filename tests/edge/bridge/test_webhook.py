"""Alerts to a web server on loopback: signed, and whose fault an answer says it is."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edge.bridge.core import Refused, Unavailable, as_json
from edge.bridge.webhook import Webhook, sign
from edge.errors import SettingsError
from edge.notices import Notices

from .test_core import STATUS, alerts


class Hook:
    """A web server that answers with `codes` in turn, then 204."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, dict(self.headers), body))
                code = hook.codes.pop(0) if hook.codes else 204
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?x=1"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


def test_an_alert_is_posted_and_signed_as_documented(hook: Hook) -> None:
    target = Webhook(hook.url, b"secret", now=lambda: 1234.9)
    assert target.deliver(alerts(2)) == 1
    ((path, headers, body),) = hook.got
    assert path == "/hook?x=1" and body == as_json(alerts(1)[0]).encode()
    assert headers["Content-Type"] == "application/json" and headers["Idempotency-Key"] == "j-0"
    expected = hmac.new(b"secret", b"1234." + body, hashlib.sha256).hexdigest()
    assert (headers["X-Haad-Timestamp"], headers["X-Haad-Signature"]) == ("1234", f"sha256={expected}")
    Webhook(hook.url).deliver(alerts(1))
    assert "X-Haad-Signature" not in hook.got[1][1]


def test_states_are_posted_when_they_change_if_asked_to(hook: Hook) -> None:
    target = Webhook(hook.url, b"secret", states=True, now=lambda: 1000.0)
    overloaded = replace(STATUS, reason="overloaded: 812 of 900")
    gone = replace(STATUS, silent=["gate"])
    for status in (STATUS, STATUS, overloaded, gone, replace(gone, seconds=9.0)):
        target.show_status(status)
    bodies = [json.loads(body) for _, _, body in hook.got]
    assert bodies == [
        {"type": "status", "state": "online", "reason": "", "run": "r", "silent": silent, "warnings": []}
        for silent in ([], ["gate"])
    ]
    assert hook.got[0][1]["X-Haad-Signature"] == sign(b"secret", "1000", hook.got[0][2])
    assert "Idempotency-Key" not in hook.got[0][1]
    Webhook(hook.url).show_status(STATUS)
    assert len(hook.got) == 2, "nobody asked"
    odd = replace(gone, warnings=["stream hall: odd"])
    for status in (odd, odd, replace(odd, run="another")):
        target.show_status(status)
    last = [json.loads(body) for _, _, body in hook.got[2:]]
    assert [(m["run"], m["warnings"]) for m in last] == [("r", odd.warnings), ("another", odd.warnings)]

    hook.codes = [503, 400]
    offline = replace(STATUS, state="offline")
    for kind in (Unavailable, Refused):
        with pytest.raises(kind):
            target.show_status(offline)
    target.show_status(offline)
    target.show_status(offline)
    assert len(hook.got) == 7 and json.loads(hook.got[-1][2])["state"] == "offline"


def test_the_signature_is_that_of_a_known_case() -> None:
    """Computed with openssl: printf '1700000000.{}' | openssl dgst -sha256 -hmac key"""
    digest = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
    assert sign(b"key", "1700000000", b"{}") == f"sha256={digest}"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(c, Refused) for c in (400, 413, 422)] + [(c, Unavailable) for c in (302, 401, 404, 429, 500, 503)],
)
def test_an_answer_that_is_no_success_says_whose_fault_it_is(hook: Hook, code: int, kind: type[Exception]) -> None:
    hook.codes = [code]
    with pytest.raises(kind, match=str(code)):
        Webhook(hook.url).deliver(alerts(1))
    assert len(hook.got) == 1, "a redirection is not followed"


def test_a_server_that_is_not_there_is_waited_for(hook: Hook) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}/"
    with pytest.raises(Unavailable, match="cannot be reached"):
        Webhook(url, timeout=2).deliver(alerts(1))
    with socket.socket() as s:  # takes the connection and never answers
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(Unavailable, match="cannot be reached"):
            Webhook(f"http://127.0.0.1:{s.getsockname()[1]}/", timeout=0.1).deliver(alerts(1))


@pytest.fixture
def answering() -> Iterator[Callable[[bytes, float], str]]:
    """Starts a server that answers everything with these bytes, one each so many seconds; returns its address."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes, pause: float) -> str:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        with listening.accept()[0] as s:
                            while not s.recv(65536).endswith(b"}"):  # what is left unread would reset the answer
                                pass
                            for byte in answer:
                                s.sendall(bytes([byte]))
                                time.sleep(pause)

            threading.Thread(target=serve, daemon=True).start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}/"

        yield start


def trying() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "webhook"]


def test_the_time_out_is_for_the_whole_of_a_try(answering: Callable[[bytes, float], str]) -> None:
    url = answering(b"HTTP/1.1 200 OK\r\n" * 100, 0.05)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"no complete answer within 0\.3 s"):
        Webhook(url, timeout=0.3).deliver(alerts(1))
    assert time.monotonic() - began < 5
    for thread in trying():
        thread.join(5)
    assert not trying(), "what was given up does not go on"


def test_a_stop_ends_a_try(answering: Callable[[bytes, float], str]) -> None:
    target = Webhook(answering(b"HTTP/1.1 200 OK\r\n" * 100, 0.05), timeout=300)
    threading.Timer(0.2, target.stop).start()
    with pytest.raises(Unavailable, match="bridge is stopping"):
        target.deliver(alerts(1))
    for thread in trying():
        thread.join(5)
    assert not trying()


def test_what_was_given_up_before_it_was_connected_is_never_sent(hook: Hook) -> None:
    target, go = Webhook(hook.url, timeout=0.1), threading.Event()
    looked_up = socket.getaddrinfo

    def slow(*args: object, **more: object) -> object:
        go.wait(10)
        return looked_up(*args, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", slow)
        with pytest.raises(Unavailable, match="no complete answer"):
            target.deliver(alerts(1))
        left = trying()
        go.set()
        for thread in left:
            thread.join(5)
    assert len(left) == 1 and not hook.got and not trying()


def test_what_a_server_says_is_shown_bounded_and_in_one_line(answering: Callable[[bytes, float], str]) -> None:
    with pytest.raises(Unavailable) as e:
        Webhook(answering(b"\x00\x1b[31mNO\r" + b"x" * 300 + b"\r\n", 0)).deliver(alerts(1))
    said = io.StringIO()
    Notices(said).say(str(e.value))
    assert r"BadStatusLine: \x00\x1b[31mNO\rx" in said.getvalue() and len(said.getvalue()) < 300
    assert said.getvalue()[:-1].isprintable()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", ""), ("ftp://x/y", ""), ("example.org", ""), ("http:///x", ""), ("", ""),
        ("http://127.0.0.1:99999/", "0-65535"), ("http://127.0.0.1:0/", "port 0"), ("http://127.0.0.1:http/", "Port"),
        ("http://user:pw@host/x", "user and password"), ("http://user@host/x", "leave them out"),
        ("http://host/a b", "%20"), ("http://ho st/", "%20"), ("http://host/a\n", "control"), (" http://host/", "%20"),
        ("http://a%20b/", "%20"), ("http://host/ä", "percent-encode"), ("http://bücher/", "xn--"),
        ("http://%C3%A4/", "xn--"),
        ("http://[::1/", "Invalid IPv6"), ("http://a..b/", "label"), (f"http://{'x' * 64}/", "label"),
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match="not a web address") as e:
        Webhook(url)
    assert words in str(e.value) and "pw" not in str(e.value).replace("passwd", "")


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "HTTP://HOST:65535/x?y=1#z",
        "https://[::1]:8080/",
        "http://xn--bcher-kva.example/%20",
        "http://h:/x",
    ],
)
def test_what_is_one_is_taken(url: str) -> None:
    Webhook(url)
