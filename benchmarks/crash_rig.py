"""Runs the processes of `benchmarks.crash`: those that are killed and restarted, and those that receive the alerts.

camera ──► haad-edge run ──► subscriber with a cursor ──► a file
                        ├──► bridge jsonl ──────────────► a file
                        ├──► bridge webhook ────────────► Receiver, in this process: fails now and then
                        └──► bridge mqtt ──► mosquitto ─► Listener, in this process
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edge.bridge.core import as_json
from edge.client import AlertSubscriber, PosePublisher
from edge.clip import save_clip
from edge.events import Alert
from edge.motion import make_motion

PEOPLE, FPS, SPEED = 3, 20, 4.0
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
AlertKey = tuple[int, str, str]
"""What identifies an alert message: seq, id, type."""


@dataclass
class Part:
    """A process that is restarted whenever it is killed."""

    name: str
    command: list[str]
    log: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0

    def start(self) -> None:
        with self.log.open("ab") as f:
            self.process = subprocess.Popen(self.command, stdout=f, stderr=f, env=self.env)

    def kill(self) -> None:
        assert self.process and self.process.poll() is None, f"{self.name} died by itself\n{self.tail()}"
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log.exists() else ""


@dataclass
class Listener:
    """An MQTT client in this process that records what the broker delivers."""

    port: int
    got: list[AlertKey] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener")
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda c, *_: c.subscribe("haad-edge/alert/#", qos=0)
        client.on_subscribe = lambda *_: self.ready.set()
        client.on_disconnect = lambda *_: self.ready.clear()
        client.on_message = lambda _, __, m: self.got.append(alert_key(json.loads(m.payload)))
        client.connect_async("127.0.0.1", self.port, keepalive=10)
        client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Receiver:
    """A web server in this process: of twenty requests it refuses one, and accepts one without answering."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.got: list[AlertKey] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body, chance = self.rfile.read(int(self.headers["Content-Length"])), rng.random()
                if chance >= 0.05:
                    receiver.got.append(alert_key(json.loads(body)))
                if 0.05 <= chance < 0.1:
                    return
                self.send_response(503 if chance < 0.05 else 204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def alert_key(m: dict[str, Any]) -> AlertKey:
    return m["seq"], m["id"], m["type"]


def subscribe(alerts: str, cursor: Path, to: Path) -> None:
    """Run the subscriber that is killed: it writes each alert to a file, and then moves the cursor on."""
    fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with AlertSubscriber(alerts, topics=["alert"], cursor=cursor, since=0, patience=60) as subscriber:
        for event in subscriber:
            if isinstance(event, Alert):
                os.write(fd, as_json(event).encode() + b"\n")


def send(to: str, stop: threading.Event) -> None:
    """Send people who fall over and over, faster than in real life, as new tracks each time."""
    motion = make_motion("fall", seconds=6, fps=FPS)
    with PosePublisher(to, stream="yard") as camera:
        began, frame, turn = time.monotonic(), 0, 0
        while not stop.is_set():
            turn += 1
            for joints in motion.joints:
                ids = [turn * PEOPLE + i for i in range(PEOPLE)]
                camera.send(ids, [joints] * PEOPLE, t=frame * 10**9 // FPS)
                frame += 1
                if stop.wait(max(0.0, began + frame / FPS / SPEED - time.monotonic())):
                    return


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(done: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"gave up after {seconds:g} s: {what()}")
        time.sleep(0.02)


@dataclass
class Rig:
    """Everything that runs, and the addresses it is reached at. Without mosquitto there is no `listener`."""

    parts: dict[str, Part]
    receiver: Receiver
    listener: Listener | None
    poses: str
    alerts: str

    def kill(self, name: str) -> None:
        """Kill a process with kill -9, and restart it at once."""
        part, bridge = self.parts[name], self.parts.get("mqtt")
        if part.name != "broker":
            part.kill()
            part.start()
            return
        # A message acknowledged by the broker before the listener has subscribed again would count against the bridge.
        assert self.listener and bridge and bridge.process
        bridge.process.send_signal(signal.SIGSTOP)
        part.kill()
        self.listener.ready.clear()
        part.start()
        until(self.listener.ready.is_set, 30, part.tail)
        bridge.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def rig(root: Path, seed: int) -> Iterator[Rig]:
    """Start all processes, and stop them at the end whatever happens."""
    for k in range(3):
        save_clip(root / "support" / "walk" / f"{k}.npz", make_motion("walk", seconds=4, seed=k))
    poses, alerts, replay = (f"ipc://{root}/{name}" for name in ("in", "out", "replay"))
    haad = [sys.executable, "-m", "edge.cli"]
    source = ["--from", f"sub+connect:{alerts}", "--since", "0"]
    engine = ["--support", str(root / "support"), "--cache", str(root / "cache"), "--journal", str(root / "journal.db")]
    engine += ["--ingest", f"sub+bind:{poses}", "--alerts", f"pub+bind:{alerts}", "--replay", f"router+bind:{replay}"]
    engine += ["--metrics", "off", "--update-every", "0.2"]
    with contextlib.ExitStack() as stack:
        receiver = Receiver(seed)
        stack.callback(receiver.close)
        hook = [*haad, "bridge", "webhook", receiver.url, "--cursor", str(root / "webhook.cursor"), *source]
        subscriber = [sys.executable, "-m", "benchmarks.crash", "--as-subscriber", f"sub+connect:{alerts}", str(root)]
        commands = {
            "engine": [*haad, "run", *engine],
            "subscriber": subscriber,
            "jsonl": [*haad, "bridge", "jsonl", str(root / "bridge.jsonl"), *source],
            "webhook": hook,
        }
        listener = None
        if MOSQUITTO:
            port = free_port()
            conf = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n"
            (root / "mosquitto.conf").write_text(conf, encoding="utf-8")
            commands["broker"] = [MOSQUITTO, "-c", str(root / "mosquitto.conf")]
            commands["mqtt"] = [*haad, "bridge", "mqtt", f"mqtt://127.0.0.1:{port}", *source]
            commands["mqtt"] += ["--cursor", str(root / "mqtt.cursor")]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        parts = {n: Part(n, c, root / f"{n}.log", env) for n, c in commands.items()}
        for name in sorted(parts, key=lambda n: n != "broker"):
            parts[name].start()
            stack.callback(parts[name].stop)
            if name == "broker":
                listener = Listener(port)
                stack.callback(listener.close)
                until(listener.ready.is_set, 30, parts[name].tail)
        yield Rig(parts, receiver, listener, f"pub+connect:{poses}", f"sub+connect:{alerts}")
