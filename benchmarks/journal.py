"""Measures what the journal costs: commits with and without a flush to disk, and how long an alert waits for them.

python -m benchmarks.journal --folder DIR --json benchmarks/results/journal-<machine>-<date>.json

FULL flushes at each commit, NORMAL leaves that to the kernel. Neither loses anything after kill -9; only NORMAL can
lose alerts in a power cut. "Published" is the time from an alert's `put` on the loop's thread to its `send` on the
journal's.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import quantiles

from edge.bench.machine import cpu
from edge.journal.outbox import Outbox
from edge.journal.store import Entry, Journal
from edge.notices import Notices

MESSAGE = b"x" * 500
"""About the size of an alert message."""
TIMES = 500


class Sink:
    """Records when each message was sent."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.sent = threading.Semaphore(0)

    def send(self, message: bytes) -> None:
        self.at.append(time.perf_counter())
        self.sent.release()

    def newcomers(self) -> bool:
        return False

    def wanted(self, topic: bytes) -> bool:
        return True

    def close(self) -> None: ...


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, in milliseconds."""
    q = quantiles(seconds, n=100)
    return {"p50_ms": round(q[49] * 1e3, 3), "p99_ms": round(q[98] * 1e3, 3), "max_ms": round(max(seconds) * 1e3, 3)}


def opened(folder: Path, mode: str) -> Journal:
    journal = Journal(folder / f"{mode}.db")
    assert journal._db
    journal._db.execute(f"PRAGMA synchronous={mode}")
    return journal


def commits(journal: Journal, size: int) -> dict[str, float]:
    """Time commits of `size` alerts each."""
    took = []
    for _ in range(TIMES):
        batch = [Entry(journal.next + i, f"a{i}", True, MESSAGE) for i in range(size)]
        began = time.perf_counter()
        journal.append(batch)
        took.append(time.perf_counter() - began)
    return summary(took)


def published(journal: Journal, size: int) -> tuple[dict[str, float], dict[str, float]]:
    """Raise `size` alerts at once, TIMES times: how long each waits, and how long the loop is held up for each."""
    sink, kept, waited = Sink(), [], []
    box = Outbox(journal, sink, Notices(io.StringIO()))
    box.start()
    for _ in range(TIMES):
        began = time.perf_counter()
        for i in range(size):
            box.put(f"a{i}", True, MESSAGE)
        kept.append((time.perf_counter() - began) / size)
        for _ in range(size):
            sink.sent.acquire()
        waited += [at - began for at in sink.at[-size:]]
    box.close()
    return summary(waited), summary(kept)


def measure(folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, dict[str, float]]]:
    """Measure all figures, by mode."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for mode in ("FULL", "NORMAL"):
        rows = out[mode] = {}
        for size in (1, 64):
            journal = opened(folder, mode)
            rows[f"commit of {size}"] = commits(journal, size)
            rows[f"{size} at once, published"], rows[f"{size} at once, loop kept, each"] = published(journal, size)
        for name, row in rows.items():
            say(f"{mode:7}{name:34}" + "  ".join(f"{k} {v:8.3f}" for k, v in row.items()))
    return out


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="a folder on the disk to measure")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="journal-") as d:
        figures = measure(Path(d), lambda s: print(s, file=sys.stdout, flush=True))
    report = {"machine": cpu(), "date": str(date.today()), "command": "python -m benchmarks.journal", **figures}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
