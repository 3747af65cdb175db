"""Kills engine, subscriber, bridges and broker at random (kill -9) while alerts flow, and counts losses and repeats.

python -m benchmarks.crash --kills 200 --json benchmarks/results/crash-<machine>-<date>.json

The processes are in `benchmarks/crash_rig.py`. All receivers are compared with the journal, which is the truth: what
only the journal has is lost; what only a receiver has was published before it was written; and a number that stands for
two alerts is a duplicate that no receiver can recognise. A kill does not wait until everything is up again after the
last one.

Messages that a broker has acknowledged but not yet delivered die with it, and no bridge can know. To test the bridge
and not mosquitto, the listening client uses QoS 0 (at QoS 1 at most 20 messages are in flight to it, and the others
wait in the broker's memory), and the bridge is stopped (SIGSTOP) from the broker's kill until that client is back.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.crash_rig import AlertKey, alert_key, rig, send, subscribe, until
from edge.bench.machine import cpu
from edge.client import AlertSubscriber
from edge.events import Alert, decode_event


def written(path: Path) -> list[AlertKey]:
    """Read the alerts of a file's complete lines."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [alert_key(json.loads(line)) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


def journaled(path: Path) -> list[AlertKey]:
    """Read the alerts of the journal."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT seq, message FROM alert ORDER BY seq").fetchall()
    events = [(seq, decode_event([m])) for seq, m in rows]
    assert all(isinstance(e, Alert) and e.seq == seq for seq, e in events)
    return [(seq, e.id, e.type) for seq, e in events if isinstance(e, Alert)]


def crash(root: Path, kills: int, seed: int, pause: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill `kills` times at random moments, let everything settle, and compare the receivers with the journal."""
    rng = random.Random(seed)
    stop, enough = threading.Event(), threading.Event()
    heard: list[AlertKey] = []
    with rig(root, seed) as r:
        live = AlertSubscriber(r.alerts, topics=["alert"], since=0, patience=60)

        def listen() -> None:
            with live:
                while not stop.is_set():
                    event = live.receive(0.2)
                    if isinstance(event, Alert):
                        heard.append((event.seq, event.id, event.type))

        ear, camera = threading.Thread(target=listen), threading.Thread(target=send, args=(r.poses, enough))
        began = time.monotonic()
        ear.start()
        camera.start()
        try:
            until(lambda: len(heard) > 20, 60, r.parts["engine"].tail)
            for n in range(kills):
                time.sleep(rng.uniform(0, 2 * pause))
                r.kill(rng.choice(sorted(r.parts)))
                if (n + 1) % 20 == 0:
                    say(f"{n + 1} kills, {len(heard)} alert messages heard")
            enough.set()
            camera.join()
            # All has settled when the engine has judged everything it was sent, and every receiver has caught up.
            path, size = root / "journal.db", -1
            while size != (size := len(journaled(path))):
                time.sleep(3)
            truth = journaled(path)
            sinks: dict[str, Callable[[], list[AlertKey]]] = {
                "subscriber with a cursor": lambda: written(root / "subscriber.jsonl"),
                "bridge jsonl": lambda: written(root / "bridge.jsonl"),
                "bridge webhook": lambda: list(r.receiver.got),
                "subscriber never killed": lambda: list(heard),
            }
            if listener := r.listener:
                sinks["bridge mqtt"] = lambda: list(listener.got)
            # A receiver that lags has lost nothing: wait as long as any still receives something.
            counts, since = [0], time.monotonic()
            while not all(truth[-1] in get() for get in sinks.values()) and time.monotonic() < since + 60:
                if counts != (counts := [len(get()) for get in sinks.values()]):
                    since = time.monotonic()
                time.sleep(0.5)
            seconds = time.monotonic() - began
        finally:
            enough.set()
            stop.set()
            ear.join()
            camera.join()
        found = {name: compare(truth, get()) for name, get in sinks.items()}
        for name, part in r.parts.items():
            assert "Traceback" not in part.log.read_text(encoding="utf-8", errors="replace"), f"{name}\n{part.tail()}"
    # An alert that goes on after its end sends `update`, and ends again.
    opened = Counter(id for _, id, kind in truth if kind == "new")
    last: dict[str, str] = {}
    ended_twice = 0
    for _, id, kind in truth:
        ended_twice += kind == "end" == last.get(id)
        last[id] = kind
    return {
        "kills": {name: part.kills for name, part in r.parts.items()},
        "seconds": round(seconds, 1),
        "alert_messages": len(truth),
        "alerts": len(opened),
        "journal_gapless": [s for s, _, _ in truth] == list(range(len(truth))),
        "begun_more_than_once": sum(n > 1 for n in opened.values()),
        "never_begun": len(last.keys() - opened.keys()),
        "ended_twice_in_a_row": ended_twice,
        "left_standing": sum(kind != "end" for kind in last.values()),
        "sinks": found,
    }


def compare(truth: list[AlertKey], got: list[AlertKey]) -> dict[str, int]:
    """Compare what a sink has with what the journal has."""
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
    """Kill, compare, print; exits with 1 if a sink lost, invented or misordered an alert, or cannot tell two apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.7, help="mean seconds between two kills")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
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
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    wrong = not figures["journal_gapless"] or any(
        row["lost"] or row["not_in_journal"] or row["duplicates_after_deduplication"] or row["out_of_order"]
        for row in figures["sinks"].values()
    )
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
