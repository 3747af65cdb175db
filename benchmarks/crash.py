"""kill -9 of engine, subscriber, bridges and broker at random while alerts flow: is one lost, or said twice?

python -m benchmarks.crash --kills 200 --json benchmarks/results/crash-<machine>-<date>.json

poses ──► haad-edge run ──► journal ◄─ compared at the end ─► what a subscriber wrote, with a cursor, killed too
                    └─────────────────────────────────────► what `bridge jsonl` wrote, killed too
                    └─────────────────────────────────────► what an MQTT client got of `bridge mqtt`, killed too,
                                                            over a mosquitto, killed too
                    └─────────────────────────────────────► what a subscriber in this process heard

The journal is the truth that the others are held against: what it has and they have not is lost, what they have and it
has not was published before it was written, and a number that stands for two alerts is a duplicate that nobody can see.
What a broker has acknowledged and not yet handed on dies with it, and no bridge can know. So that this run judges the
bridge and not mosquitto, the listening client takes QoS 0 (at QoS 1 at most 20 messages are on their way to it, and the
others wait in the broker's memory), and while the broker is down its bridge is held (SIGSTOP) until the client is back.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from edge.bench.machine import cpu
from edge.bridge.core import as_json
from edge.client import AlertSubscriber, PosePublisher
from edge.clip import save_clip
from edge.motion import make_motion
from edge.wire import Alert, decode_event

PEOPLE, FPS, SPEED = 3, 20, 4.0
PARTS = ("engine", "subscriber", "jsonl", "mqtt", "broker")
Said = tuple[int, str, str]
"""seq, id, type."""


@dataclass
class Part:
    """A process that is started again whenever it is killed."""

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
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


@dataclass
class Listener:
    """An MQTT client in this process that writes down what the broker hands on."""

    port: int
    got: list[Said] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener")
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda c, *_: c.subscribe("haad-edge/alert/#", qos=0)
        client.on_subscribe = lambda *_: self.ready.set()
        client.on_disconnect = lambda *_: self.ready.clear()
        client.on_message = lambda _, __, m: self.got.append(said(json.loads(m.payload)))
        client.connect_async("127.0.0.1", self.port, keepalive=10)
        client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def said(m: dict[str, Any]) -> Said:
    return m["seq"], m["id"], m["type"]


def subscribe(alerts: str, cursor: Path, to: Path) -> None:
    """The subscriber that is killed: each alert to a file, then the cursor moves on."""
    fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with AlertSubscriber(alerts, topics=["alert"], cursor=cursor, since=0, patience=60) as subscriber:
        for event in subscriber:
            if isinstance(event, Alert):
                os.write(fd, as_json(event).encode() + b"\n")


def written(path: Path) -> list[Said]:
    """The whole lines of a file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [said(json.loads(line)) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


def journaled(path: Path) -> list[Said]:
    """What the journal says was raised."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT seq, message FROM alert ORDER BY seq").fetchall()
    events = [(seq, decode_event([m])) for seq, m in rows]
    assert all(isinstance(e, Alert) and e.seq == seq for seq, e in events)
    return [(seq, e.id, e.type) for seq, e in events if isinstance(e, Alert)]


def send(to: str, stop: threading.Event) -> None:
    """People who fall, over and over, faster than life, as new tracks each time."""
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


@contextlib.contextmanager
def parts(root: Path, broker: bool) -> Iterator[tuple[dict[str, Part], Listener | None, str, str]]:
    """All processes, started; stopped at the end whatever happens."""
    for k in range(3):
        save_clip(root / "support" / "walk" / f"{k}.npz", make_motion("walk", seconds=4, seed=k))
    poses, alerts, replay = (f"ipc://{root}/{name}" for name in ("in", "out", "replay"))
    haad = [sys.executable, "-m", "edge.cli"]
    port = free_port()
    (root / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n"
    )
    source = ["--from", f"sub+connect:{alerts}", "--since", "0"]
    engine = ["--support", str(root / "support"), "--cache", str(root / "cache"), "--journal", str(root / "journal.db")]
    engine += ["--ingest", f"sub+bind:{poses}", "--alerts", f"pub+bind:{alerts}", "--replay", f"router+bind:{replay}"]
    engine += ["--metrics", "off", "--update-every", "0.2"]
    commands = {
        "engine": [*haad, "run", *engine],
        "subscriber": [sys.executable, "-m", "benchmarks.crash", "--as-subscriber", f"sub+connect:{alerts}", str(root)],
        "jsonl": [*haad, "bridge", "jsonl", str(root / "bridge.jsonl"), *source],
    }
    if broker:
        commands["broker"] = [str(shutil.which("mosquitto", path=PATH)), "-c", str(root / "mosquitto.conf")]
        commands["mqtt"] = [*haad, "bridge", "mqtt", f"mqtt://127.0.0.1:{port}", *source]
        commands["mqtt"] += ["--cursor", str(root / "mqtt.cursor")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    all_parts = {n: Part(n, c, root / f"{n}.log", env) for n, c in commands.items()}
    with contextlib.ExitStack() as stack:
        listener = None
        for name in sorted(all_parts, key=lambda n: n != "broker"):
            part = all_parts[name]
            part.start()
            stack.callback(part.stop)
            if name == "broker":
                listener = Listener(port)
                stack.callback(listener.close)
                until(listener.ready.is_set, 30, part.tail)
        yield all_parts, listener, poses, f"sub+connect:{alerts}"


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def crash(root: Path, kills: int, seed: int, pause: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill so many times at random moments, let everything come to rest, and compare."""
    rng = random.Random(seed)
    broker = shutil.which("mosquitto", path=PATH) is not None
    stop = threading.Event()
    with parts(root, broker) as (running, listener, poses, alerts):
        live = AlertSubscriber(alerts, topics=["alert"], since=0, patience=60)
        heard: list[Said] = []
        began = time.monotonic()

        def listen() -> None:
            with live:
                while not stop.is_set():
                    event = live.receive(0.2)
                    if isinstance(event, Alert):
                        heard.append((event.seq, event.id, event.type))

        poser, camera = threading.Event(), None
        ear = threading.Thread(target=listen)
        ear.start()
        try:
            camera = threading.Thread(target=send, args=(f"pub+connect:{poses}", poser))
            camera.start()
            until(lambda: len(heard) > 20, 60, running["engine"].tail)
            for n in range(kills):
                time.sleep(rng.uniform(0, 2 * pause))
                part = running[rng.choice(sorted(running))]
                bridge = running.get("mqtt")
                if part.name == "broker" and bridge and bridge.process and listener:
                    bridge.process.send_signal(signal.SIGSTOP)
                    part.kill()
                    listener.ready.clear()
                    part.start()
                    until(listener.ready.is_set, 30, part.tail)
                    bridge.process.send_signal(signal.SIGCONT)
                else:
                    part.kill()
                    part.start()
                    if part.name == "engine":  # alerts flow again before the next one
                        before = len(heard)
                        until(lambda n=before: len(heard) > n, 60, part.tail)  # type: ignore[misc]
                if (n + 1) % 20 == 0:
                    say(f"{n + 1} kills, {len(heard)} alert messages heard")
            poser.set()
            camera.join()
            # At rest when the engine has judged all that it was sent, and everybody has caught up.
            path = root / "journal.db"
            size = -1
            while size != (size := len(journaled(path))):
                time.sleep(3)
            truth = journaled(path)
            sinks: dict[str, Callable[[], list[Said]]] = {
                "subscriber with a cursor": lambda: written(root / "subscriber.jsonl"),
                "bridge jsonl": lambda: written(root / "bridge.jsonl"),
                "subscriber never killed": lambda: list(heard),
            }
            if listener:
                sinks["bridge mqtt"] = lambda: list(listener.got)
            last = truth[-1]
            with contextlib.suppress(SystemExit):
                until(lambda: all(last in get() for get in sinks.values()), 60, str)
        finally:
            poser.set()
            stop.set()
            ear.join()
        found = {name: compare(truth, get()) for name, get in sinks.items()}
        logs = {name: part.tail() for name, part in running.items()}
        for name, text in logs.items():
            assert "Traceback" not in text, f"{name}\n{text}"
    opened = Counter(id for _, id, kind in truth if kind == "new")
    ended = Counter(id for _, id, kind in truth if kind == "end")
    return {
        "kills": {name: part.kills for name, part in running.items()},
        "seconds": round(time.monotonic() - began, 1),
        "alert_messages": len(truth),
        "alerts": len(opened),
        "journal_gapless": [s for s, _, _ in truth] == list(range(len(truth))),
        "begun_more_than_once": sum(n > 1 for n in opened.values()),
        "ended_more_than_once": sum(n > 1 for n in ended.values()),
        "never_ended": len(opened) - len(ended),
        "sinks": found,
    }


def compare(truth: list[Said], got: list[Said]) -> dict[str, int]:
    """What a sink has against what the journal has."""
    unique = set(got)
    first = list(dict.fromkeys(seq for seq, _, _ in got))
    return {
        "lost": len(set(truth) - unique),
        "not_in_journal": len(unique - set(truth)),
        "duplicates_after_deduplication": len(unique) - len({seq for seq, _, _ in unique}),
        "out_of_order": sum(a > b for a, b in itertools.pairwise(first)),
        "repeated_before_deduplication": len(got) - len(unique),
    }


def main() -> None:
    """Kill, compare, print; exit 1 when an alert was lost or cannot be told from another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.7, help="mean seconds between two kills")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--as-subscriber", nargs=2, metavar=("ALERTS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_subscriber:
        root = Path(options.as_subscriber[1])
        subscribe(options.as_subscriber[0], root / "subscriber.cursor", root / "subscriber.jsonl")
        return
    with tempfile.TemporaryDirectory(prefix="haad-crash-") as d:
        figures = crash(Path(d), options.kills, options.seed, options.pause, lambda s: print(s, flush=True))
    report = {
        "machine": cpu(),
        "date": str(date.today()),
        "command": f"python -m benchmarks.crash --kills {options.kills} --seed {options.seed}",
        **figures,
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    wrong = not figures["journal_gapless"] or any(
        row["lost"] or row["not_in_journal"] or row["duplicates_after_deduplication"] or row["out_of_order"]
        for row in figures["sinks"].values()
    )
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
