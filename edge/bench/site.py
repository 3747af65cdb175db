"""Starts a real `haad-edge run` to be measured: its folder, its process, its metrics page, and a subscriber."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from edge.bench.traffic import perform
from edge.client import AlertSubscriber
from edge.commands.demo import NORMAL, process
from edge.errors import HaadError
from edge.events import Status

SHOTS, CLIP_FRAMES, FPS = 3, 240, 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """A running engine: its process id, the endpoint for cameras, its subscriber, and when it was started."""

    pid: int
    ingest: str
    subscriber: AlertSubscriber
    log: Path
    began: float

    def metrics(self) -> dict[str, float]:
        """The samples of the metrics page: name, or name{value of its one label} → value."""
        said = self.log.read_text(encoding="utf-8", errors="replace")
        page = said.partition(", page ")[2].split("\n")[0]
        with urllib.request.urlopen(f"http://{page}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {
            s.name + ("{" + ",".join(s.labels.values()) + "}" if s.labels else ""): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    def status(self, seconds: float = 60) -> Status:
        """The next status message; other events before it are skipped."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            event = self.subscriber.receive(left)
            if isinstance(event, Status):
                return event
        raise HaadError(
            "the engine under test is silent", why=self.log.read_text(encoding="utf-8", errors="replace").strip()[-600:]
        )


def prepare(root: Path) -> Path:
    """Make the support folder of all measurements: three clips of each normal action, from the same tracker."""
    folder = root / "support"
    if not folder.is_dir():
        for name in NORMAL:
            (folder / name).mkdir(parents=True)
            for k in range(SHOTS):
                rng = np.random.default_rng([k, *name.encode()])
                joints, visible = perform(CLIP_FRAMES, FPS, rng, name, faults=False)
                np.savez(folder / name / f"{k}.npz", joints=joints, visible=visible, fps=FPS, layout="coco17")
    return folder


@contextlib.contextmanager
def site(root: Path, *options: str, pattern: str = "sub", topics: tuple[str, ...] = ("status",)) -> Iterator[Site]:
    """Run an engine with its files under `root`; `pattern` is how it takes poses.

    The engine connects and the others bind, so they are there before it, and no reconnection delays the first score.
    """
    support = prepare(root)
    name = f"{time.monotonic_ns():x}"
    ingest, alerts, log = f"ipc://{root}/i{name}", f"ipc://{root}/a{name}", root / f"{name}.log"
    with contextlib.ExitStack() as stack:
        subscriber = stack.enter_context(AlertSubscriber(f"sub+bind:{alerts}", topics=topics))
        began = time.monotonic()
        arguments = ["run", "--support", str(support), "--cache", str(root / "cache"), "--metrics", "127.0.0.1:0"]
        arguments += ["--ingest", f"{pattern}+connect:{ingest}", "--alerts", f"pub+connect:{alerts}", *options]
        engine = stack.enter_context(process(log, *arguments))
        yield Site(engine.pid, f"{'push' if pattern == 'pull' else 'pub'}+bind:{ingest}", subscriber, log, began)
