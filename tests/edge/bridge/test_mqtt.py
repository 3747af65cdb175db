"""Alerts to a real mosquitto broker, also one that is killed or frozen."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.bridge.core import Unavailable, as_json
from edge.errors import SettingsError

from .test_core import ALERT, STATUS, alerts

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

    target, first = Mqtt(broker.url, client_id="t"), Ear(broker.port)
    target.show_status(STATUS)
    target.show_status(replace(STATUS, seconds=2.0))
    target.show_status(replace(STATUS, state="degraded", reason="no disk", silent=["gate"]))
    assert target.deliver(alerts(1)) == 1  # acknowledged after the states, so these have arrived
    assert [m.get("state") for _, m, _ in first.until(3)] == ["online", "degraded", None], "published as it changes"
    first.close()
    ear = Ear(broker.port)
    shown = {"state": "degraded", "reason": "no disk", "run": "r", "silent": ["gate"], "warnings": []}
    assert ear.until(1) == [("haad-edge/status", shown, True)]
    target.close()
    assert ear.until(2)[1][1] == {"state": "offline", "reason": "the bridge was stopped"}
    ear.close()


@needs_broker
def test_the_broker_says_offline_when_the_bridge_dies(broker: Broker) -> None:
    from edge.bridge.mqtt import Mqtt

    target = Mqtt(broker.url, client_id="t")
    target.show_status(STATUS)
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
    with pytest.raises(Unavailable, match="no broker answers at"):
        target.deliver(alerts(1))
    with pytest.raises(Unavailable, match="no broker answers at"):
        target.show_status(STATUS)
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
            with pytest.raises(Unavailable, match="does not accept the connection"):
                Mqtt(broker.url, username="haad", password="wrong", timeout=5).deliver(alerts(1))
        finally:
            broker.kill()


@pytest.mark.parametrize("url", ["127.0.0.1:1883", "http://x", "mqtt://", "mqtt://h:0", "mqtt://h:99999"])
def test_what_is_no_broker_is_refused(url: str) -> None:
    pytest.importorskip("paho")
    from edge.bridge.mqtt import Mqtt

    with pytest.raises(SettingsError, match="not a broker's address"):
        Mqtt(url)
    with pytest.raises(SettingsError, match="wildcards"):
        Mqtt("mqtt://h", prefix="a/#")


def test_a_certificate_that_is_none_is_refused_before_anything_is_carried(tmp_path: Path) -> None:
    pytest.importorskip("paho")
    from edge.bridge.mqtt import Mqtt

    (tmp_path / "text.pem").write_text("no certificate")
    for name, why in (("none.pem", "No such file"), ("text.pem", "holds no certificate")):
        with pytest.raises(SettingsError, match=rf"{name}: cannot be read: .*{why}.*--ca FILE"):
            Mqtt("mqtts://h", ca=str(tmp_path / name))
    Mqtt("mqtts://h")


def test_a_certificate_without_tls_is_refused_and_not_ignored() -> None:
    pytest.importorskip("paho")
    from edge.bridge.mqtt import Mqtt

    with pytest.raises(SettingsError, match=r"--ca is for TLS.*mqtts://broker"):
        Mqtt("mqtt://broker:1883", ca="/etc/ssl/ca.pem")
