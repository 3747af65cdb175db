"""The targets against real receivers: a file, a web server on loopback, a mosquitto broker."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge.bridge.core import Refused, Unavailable, as_json
from edge.bridge.jsonl import JsonLines
from edge.bridge.webhook import Webhook, sign
from edge.errors import SettingsError

from .test_core import ALERT, STATUS, alerts

# ---- lines of JSON ---------------------------------------------------------------------------------------------


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def test_a_file_goes_on_where_it_was_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = JsonLines(path)
    assert first.deliver(alerts(3)) == 3
    again = JsonLines(path)  # killed before the cursor moved: the same alerts come again
    assert again.deliver(alerts(5)) == 5 and numbers(path) == [0, 1, 2, 3, 4]
    other = [replace(ALERT, seq=1, journal="k"), replace(ALERT, seq=2, id="another")]
    assert JsonLines(path).deliver(other) == 2 and len(numbers(path)) == 7
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_cut_off_by_a_power_cut_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    JsonLines(path).deliver(alerts(2))
    path.write_bytes(path.read_bytes()[:-9])
    JsonLines(path).deliver(alerts(2))
    assert numbers(path) == [0, 1]


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.bridge.jsonl.TAIL", 1000)
    path = tmp_path / "a.jsonl"
    JsonLines(path).deliver(alerts(20))
    again = JsonLines(path)
    assert 0 < len(again._there) < 5
    again.deliver(alerts(21)[18:])
    assert numbers(path) == list(range(21))


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)
    lines.deliver(alerts(1))
    path.rename(tmp_path / "b.jsonl")
    lines.deliver(alerts(2)[1:])
    assert numbers(path) == [1] and numbers(tmp_path / "b.jsonl") == [0]


def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for text in ("milk\neggs\n", '{"a": 1}\n', "x" * 50):
        path.write_text(text)
        if text.endswith("\n"):
            with pytest.raises(SettingsError, match="no alert"):
                JsonLines(path)
            assert path.read_text() == text
    with pytest.raises(SettingsError, match="cannot be written"):
        JsonLines(Path("/proc/nothing/a.jsonl"))


def test_a_full_disk_is_waited_for_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = JsonLines(tmp_path / "a.jsonl")
    lines.deliver(alerts(1))
    real, calls = os.write, iter(range(9))

    def write(fd: int, data: bytes) -> int:
        if next(calls):
            raise OSError(28, "No space left on device")
        return real(fd, data[:20])

    with monkeypatch.context() as m, pytest.raises(Unavailable, match="No space left"):
        m.setattr("edge.bridge.core.os.write", write)
        lines.deliver(alerts(3)[1:])
    assert numbers(tmp_path / "a.jsonl") == [0]
    lines.deliver(alerts(3)[1:])
    assert numbers(tmp_path / "a.jsonl") == [0, 1, 2]


# ---- webhook ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "example.org", "http:///x", ""])
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="no web address"):
        Webhook(url)


# ---- MQTT ------------------------------------------------------------------------------------------------------

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here (Debian: apt-get install mosquitto)")


class Broker:
    """A real mosquitto on a port of its own, with or without a password."""

    def __init__(self, root: Path, password: str = "") -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'false' if password else 'true'}"]
        if password:
            subprocess.run(
                ["mosquitto_passwd", "-b", "-c", str(root / "users"), "haad", password], check=True, capture_output=True
            )
            (root / "users").chmod(0o644)
            lines.append(f"password_file {root / 'users'}")
        (root / "m.conf").write_text("\n".join(lines) + "\n")
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.command = [str(MOSQUITTO), "-c", str(root / "m.conf")]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2000):
            with socket.socket() as s:
                s.settimeout(1)
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "mosquitto did not start"
            threading.Event().wait(0.005)
        raise AssertionError("mosquitto does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    # tmp_path is the owner's only; mosquitto, started as root, becomes another user before it reads a password file.
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


class Ear:
    """An MQTT client that hears everything, retained messages too."""

    def __init__(self, port: int) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self.got: list[tuple[str, dict[str, Any], bool]] = []
        self.changed, ready = threading.Condition(), threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._message
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe("#", qos=1)
        assert ready.wait(10)

    def _message(self, _: Any, __: Any, m: Any) -> None:
        with self.changed:
            self.got.append((m.topic, json.loads(m.payload), bool(m.retain)))
            self.changed.notify_all()

    def until(self, count: int) -> list[tuple[str, dict[str, Any], bool]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, 10), self.got
            return list(self.got)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@needs_broker
def test_alerts_reach_the_broker_in_order_under_their_streams_topic(broker: Broker) -> None:
    from edge.bridge.mqtt import Mqtt

    ear, target = Ear(broker.port), Mqtt(broker.url, prefix="site/haad", client_id="t")
    many = [replace(ALERT, seq=n, stream=("yard", "gate/2+#")[n % 2]) for n in range(60)]
    assert target.deliver(many) == 60
    got = [m for m in ear.until(61) if "/alert/" in m[0]]
    assert [m["seq"] for _, m, _ in got] == list(range(60))
    assert [t for t, _, _ in got[:2]] == ["site/haad/alert/yard", "site/haad/alert/gate%2F2%2B%23"]
    assert got[1][1] == json.loads(as_json(many[1]))
    target.close()
    ear.close()


@needs_broker
def test_the_engines_state_is_retained_and_ends_with_the_bridge(broker: Broker) -> None:
    from edge.bridge.mqtt import Mqtt

    target = Mqtt(broker.url, client_id="t")
    target.tell(STATUS)
    target.tell(replace(STATUS, seconds=2.0))
    target.tell(replace(STATUS, state="degraded", reason="no disk"))
    assert target.deliver(alerts(1)) == 1  # acknowledged after the states, so these have arrived
    ear = Ear(broker.port)
    assert ear.until(1) == [("haad-edge/status", {"state": "degraded", "reason": "no disk", "run": "r"}, True)]
    target.close()
    assert ear.until(2)[1][1] == {"state": "offline", "reason": "the bridge was stopped"}
    ear.close()


@needs_broker
def test_the_broker_says_offline_when_the_bridge_dies(broker: Broker) -> None:
    from edge.bridge.mqtt import Mqtt

    target = Mqtt(broker.url, client_id="t")
    target.tell(STATUS)
    assert target.deliver(alerts(1)) == 1
    ear = Ear(broker.port)
    ear.until(1)
    assert target._client
    sock = target._client.socket()
    assert sock
    sock.shutdown(socket.SHUT_RDWR)  # as when the process is killed: no goodbye
    assert ear.until(2)[1][1] == {"state": "offline", "reason": "the bridge is gone"}
    ear.close()
    target.close()


@needs_broker
def test_a_broker_that_was_killed_is_found_again(broker: Broker) -> None:
    from edge.bridge.mqtt import Mqtt

    target = Mqtt(broker.url, client_id="t", timeout=2)
    assert target.deliver(alerts(1)) == 1
    broker.kill()
    with pytest.raises(Unavailable):
        target.deliver(alerts(1))
    with pytest.raises(Unavailable, match="no broker at"):
        target.deliver(alerts(1))
    target.tell(STATUS)
    broker.start()
    ear = Ear(broker.port)
    assert target.deliver(alerts(2)) == 2
    assert {t for t, _, _ in ear.until(3)} == {"haad-edge/alert/cam1", "haad-edge/status"}
    ear.close()
    target.close()


@needs_broker
def test_a_broker_that_is_frozen_is_not_believed_to_have_anything(broker: Broker) -> None:
    import signal

    from edge.bridge.mqtt import Mqtt

    target = Mqtt(broker.url, client_id="t", timeout=0.3)
    assert target.deliver(alerts(1)) == 1
    broker.process.send_signal(signal.SIGSTOP)
    with pytest.raises(Unavailable, match="does not acknowledge"):
        target.deliver(alerts(3))
    broker.process.send_signal(signal.SIGCONT)
    target.close()


@needs_broker
def test_a_wrong_password_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile

    from edge.bridge.mqtt import Mqtt

    with tempfile.TemporaryDirectory() as d:
        Path(d).chmod(0o755)
        broker = Broker(Path(d), password="right")
        try:
            good = Mqtt(broker.url, username="haad", password="right", timeout=5)
            assert good.deliver(alerts(1)) == 1
            good.close()
            with pytest.raises(Unavailable, match="lets nobody in"):
                Mqtt(broker.url, username="haad", password="wrong", timeout=5).deliver(alerts(1))
        finally:
            broker.kill()


@pytest.mark.parametrize("url", ["127.0.0.1:1883", "http://x", "mqtt://", "mqtt://h:0", "mqtt://h:99999"])
def test_what_is_no_broker_is_refused(url: str) -> None:
    pytest.importorskip("paho")
    from edge.bridge.mqtt import Mqtt

    with pytest.raises(SettingsError, match="no broker's address"):
        Mqtt(url)
    with pytest.raises(SettingsError, match="wildcards"):
        Mqtt("mqtt://h", prefix="a/#")
