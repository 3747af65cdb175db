"""Real processes over real sockets. Every wait is a handshake with a deadline, never a sleep."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge.client import AlertSubscriber, PosePublisher
from edge.clip import save_clip
from edge.events import Event, Status
from edge.motion import make_motion
from edge.recordings.playback import capture_ns, paced, play

DATA = Path(__file__).parents[3] / "shared" / "data"
START_NS = 1_700_000_000 * 10**9


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real clips, or a skip that says so."""
    if not DATA.is_dir():
        pytest.skip(f"the real clips are not at {DATA}")
    return DATA


def haad(*arguments: object, ok: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """A command of `haad-edge`, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "Traceback" not in done.stderr and (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


@dataclass
class Engine:
    """A `haad-edge run` process: where it listens and speaks, and a subscriber that has heard it."""

    process: subprocess.Popen[bytes]
    ingest: str
    alerts: str
    log: Path
    subscriber: AlertSubscriber
    events: list[Event] = field(default_factory=list)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def page(self) -> str:
        """host:port of the metrics page; said before the engine is ready."""
        found = re.search(r"page (\S+)", self.said())
        assert found, self.said()
        return found[1]

    def until(self, enough: Callable[[Event], bool], seconds: float = 120) -> Event:
        """Collect events up to the first that is `enough`, which must come within `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            event = self.subscriber.receive(max(0.0, deadline - time.monotonic()))
            assert event is not None, f"not within {seconds} s\n{self.said()}"
            self.events.append(event)
            if enough(event):
                return event

    def until_frames(self, frames: int, seconds: float = 120) -> Status:
        """Collect events until the engine has taken so many frames and judged what was due."""
        event = self.until(lambda e: isinstance(e, Status) and e.frames >= frames, seconds)
        assert isinstance(event, Status)
        return event

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """A signal, then the exit code; the events of the drain are collected."""
        self.process.send_signal(how)
        self.until(lambda e: isinstance(e, Status) and e.state == "offline")
        return self.process.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Start engines: `start(support, "--stride", "0.5", …)` returns one that is ready."""
    with contextlib.ExitStack() as stack:
        count = iter(range(100))

        def begin(
            support: Path,
            *options: str,
            topics: tuple[str, ...] = ("alert", "score", "status"),
            since: int | None = None,
        ) -> Engine:
            n = next(count)
            where = tmp_path / f"e{n}"
            where.mkdir()
            ingest, alerts = f"ipc://{where}/in", f"ipc://{where}/out"
            log = where / "log"
            command = [
                sys.executable,
                "-m",
                "edge.cli",
                "run",
                "--support",
                str(support),
                "--cache",
                str(tmp_path / "cache"),
            ]
            command += ["--ingest", f"sub+bind:{ingest}", "--alerts", f"pub+bind:{alerts}", "--metrics", "127.0.0.1:0"]
            command += ["--journal", str(where / "journal.db"), "--replay", f"router+bind:ipc://{where}/replay"]
            with log.open("wb") as f:
                process = subprocess.Popen(
                    [*command, *options], stdout=f, stderr=f, env={**os.environ, "COLUMNS": "200"}
                )
            stack.callback(process.wait, 20)
            stack.callback(process.kill)
            subscriber = stack.enter_context(AlertSubscriber(f"sub+connect:{alerts}", topics=topics, since=since))
            subscriber.wait(60)
            return Engine(process, f"pub+connect:{ingest}", f"sub+connect:{alerts}", log, subscriber)

        yield begin


@pytest.fixture(scope="session")
def made_support(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three made clips of each of two normal actions."""
    root = tmp_path_factory.mktemp("support")
    for name in ("walk", "lift_box"):
        for k in range(3):
            save_clip(root / name / f"{k}.npz", make_motion(name, seconds=5, seed=50 + k))
    return root


def send_clips(
    to: str,
    stream: str,
    paths: list[Path],
    *,
    fps: float | None = None,
    seconds: float | None = None,
    speed: float = 0,
    as_one: bool = False,
    end: bool = True,
) -> int:
    """Play clips as one camera; returns how many messages were sent."""
    with PosePublisher(to, stream=stream) as camera:
        camera.wait(30)
        t = START_NS
        for shot in paced(play(paths, fps=fps, seconds=seconds, as_one=as_one), speed):
            t = capture_ns(START_NS, shot)
            camera.send(shot.ids, shot.joints, visible=shot.visible, t=t)
        if end:
            camera.end(t)
        return camera.seq


def cameras(jobs: list[Callable[[], int]]) -> int:
    """Run cameras side by side; returns how many messages they sent in all."""
    sent: list[int] = []
    threads = [threading.Thread(target=lambda job=job: sent.append(job())) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert len(sent) == len(jobs), "a camera failed"
    return sum(sent)
