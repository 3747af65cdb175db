"""`haad-edge demo`: runs the real engine and three simulated cameras as processes, and shows live what comes out.

camera ──┐
camera ──┼─ poses ──► haad-edge run ──► alerts and scores ──► this terminal
camera ──┘

It plays generated clips that ship with the package, made by `trainer/motion/demo.py`; nobody was recorded for them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.client import AlertSubscriber
from edge.clip import categories, load_clip, save_clip
from edge.commands.console import out, say
from edge.commands.report import Newest, line
from edge.errors import ClipError, HaadError
from edge.events import Alert, Scores
from edge.grid import SECOND

CLIPS = Path(__file__).parents[1] / "demo_clips"
"""support/<category>/*.npz and played/<motion>.npz: one round that repeats without a seam, or the whole fall."""
SHOTS = 3
START_S = 60.0
NORMAL = ("walk", "wave", "lift_box", "stand")
# Camera → what its person does in turn: motion, seconds. Only the fall is not in the support.
SCRIPT: dict[str, tuple[tuple[str, float], ...]] = {
    "hall": (("walk", 600.0),),
    "lobby": (("wave", 600.0),),
    "depot": (("lift_box", 20.0), ("fall", 14.0), ("stand", 600.0)),
}


@dataclass(slots=True)
class Camera:
    """What a simulated camera plays, and what the engine last reported about its person."""

    name: str
    acts: list[tuple[str, float]]
    clips: list[Path]
    scores: list[float] = field(default_factory=list)
    nearest: str = ""
    start: int | None = None
    t: int = 0
    alert: bool = False

    def doing(self) -> str:
        """What the person was doing at the time of the newest score."""
        if self.start is None:
            return "…"
        since = (self.t - self.start) / SECOND
        for name, seconds in self.acts:
            if since < seconds:
                return name
            since -= seconds
        return "gone"


def generated_scene(root: Path, seconds: float) -> list[Camera]:
    """Write the support folder and the cameras' clips of generated motion under `root`."""
    shutil.copytree(CLIPS / "support", root / "support")
    cameras = []
    for camera, script in SCRIPT.items():
        acts = [(name, min(lasts, seconds + 5)) for name, lasts in script]
        clips = []
        for k, (name, lasts) in enumerate(acts):
            clip = load_clip(CLIPS / "played" / f"{name}.npz")
            joints, visible = clip.looped(np.arange(round(lasts * clip.fps) + 1) / clip.fps)
            clips.append(root / camera / f"{k}_{name}.npz")
            save_clip(clips[-1], replace(clip, joints=joints, visible=visible))
        cameras.append(Camera(camera, acts, clips))
    return cameras


def real_scene(root: Path, data: Path) -> list[Camera]:
    """Use three evenly spaced categories of `data` as the support, and another one as the anomaly.

    Support clips and played clips are of different subjects if there are two or more.
    """
    found = categories(data)
    if len(found) < 2:
        raise ClipError(f"{data}: only one category", why="the demo needs a normal action and another one")
    names = list(found)
    normal = list(dict.fromkeys(names[i * len(names) // 4] for i in range(min(3, len(names) - 1))))
    odd = names[-1]
    cameras = []
    for i, name in enumerate(normal):
        files = found[name]
        first = load_clip(files[0]).subject
        others = [f for f in files if load_clip(f).subject != first] or files
        for f in (files[: SHOTS - 1] + others[len(others) // 2 :])[:SHOTS]:
            (root / "support" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(f, root / "support" / name / f.name)
        mine = others[: len(others) // 2] or others
        plan = [(name, f) for f in mine[:5]]
        if i == len(normal) - 1:
            plan = plan[:3] + [(odd, f) for f in found[odd][-2:]] + plan
        acts = [(n, max(load_clip(f).seconds, 6.0)) for n, f in plan]
        cameras.append(Camera(f"cam{i + 1}", acts, [f for _, f in plan]))
    return cameras


@contextlib.contextmanager
def process(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a `haad-edge` process and stop it at the end; its output goes to `log`."""
    command = [sys.executable, "-m", "edge", *arguments]
    own = {"HAAD_JOURNAL": f"{log}.journal.db", "HAAD_REPLAY": f"router+bind:ipc://{log.with_suffix('.r')}"}
    with contextlib.ExitStack() as stack:
        with _signals_deferred(), log.open("wb") as f:
            p = subprocess.Popen(
                command, stdout=f, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **own}
            )
            stack.callback(_end, p)
        yield p


def _end(p: subprocess.Popen[bytes]) -> None:
    if p.poll() is None:
        p.send_signal(signal.SIGTERM)
    try:
        p.wait(10)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer signals to the end of the block: until then nothing would end a process that has just begun."""
    came: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    mine = threading.current_thread() is threading.main_thread()
    before = {n: h for n in kinds if mine and callable(h := signal.getsignal(n))}
    try:
        for n in before:
            signal.signal(n, lambda number, _: came.append(number))
        yield
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
        for number in came:
            signal.raise_signal(number)


def _stopped(log: Path) -> HaadError:
    """The error for an engine that stopped, with the end of its log."""
    return HaadError("the demo's engine stopped", why=log.read_text(encoding="utf-8", errors="replace").strip()[-600:])


def _started(engine: subprocess.Popen[bytes], subscriber: AlertSubscriber, log: Path) -> None:
    """Wait until the engine answers. Raises HaadError with the end of its log if it died or does not answer."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if engine.poll() is not None:
            raise _stopped(log)
        with contextlib.suppress(HaadError):
            subscriber.wait(0.5)
            return
    raise HaadError(
        "the demo's engine does not answer", why=log.read_text(encoding="utf-8", errors="replace").strip()[-600:]
    )


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that no process is left behind."""
    before = {n: h for n in (signal.SIGTERM, signal.SIGHUP) if (h := signal.getsignal(n)) != signal.SIG_IGN}

    def stop(number: int, _: Any) -> None:
        for n in before:
            signal.signal(n, signal.SIG_IGN)  # a second signal must not interrupt the unwinding
        raise SystemExit(128 + number)

    try:
        for n in before:
            signal.signal(n, stop)
        yield
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def show(data: Path | None, *, seconds: float, speed: float = 1.0, bundle: Path | None = None) -> None:
    """Play the scene for `seconds` of wall-clock time, or until Ctrl-C, SIGTERM or SIGHUP."""
    with _stoppable(), tempfile.TemporaryDirectory(prefix="haad-demo-") as d, contextlib.ExitStack() as stack:
        root = Path(d)
        cameras = real_scene(root, data) if data else generated_scene(root, seconds * speed)
        poses, alerts = f"ipc://{root}/poses", f"ipc://{root}/alerts"
        chosen = ["--bundle", str(bundle)] if bundle else []
        engine = stack.enter_context(
            process(
                root / "engine.log",
                "run",
                *(
                    "--support",
                    str(root / "support"),
                    "--ingest",
                    f"sub+bind:{poses}",
                    "--alerts",
                    f"pub+bind:{alerts}",
                ),
                *("--metrics", "off", *chosen),
            )
        )
        subscriber = stack.enter_context(AlertSubscriber(f"sub+connect:{alerts}", topics=("alert", "score", "status")))
        _started(engine, subscriber, root / "engine.log")
        for c in cameras:
            arguments: tuple[str, ...] = (
                "--to",
                f"pub+connect:{poses}",
                "--stream",
                c.name,
                "--as-one",
                "--speed",
                str(speed),
            )
            if data:
                arguments += ("--seconds", "6")
            stack.enter_context(process(root / f"{c.name}.log", "publish", *map(str, c.clips), *arguments))
        _watch(cameras, subscriber, engine, seconds)
        if engine.poll() is not None:
            raise _stopped(root / "engine.log")


def _watch(cameras: list[Camera], subscriber: AlertSubscriber, engine: subprocess.Popen[bytes], seconds: float) -> None:
    by_name, news = {c.name: c for c in cameras}, []
    # Time counts from the first score on, so that a machine that starts slowly shows as much.
    until, running, drawn = time.monotonic() + seconds + START_S, False, 0.0
    live: Any = Live(console=out, refresh_per_second=8) if out.is_terminal else contextlib.nullcontext()
    with contextlib.suppress(KeyboardInterrupt), live:
        while (left := until - time.monotonic()) > 0 and engine.poll() is None:
            event = subscriber.receive(min(left, 0.2))
            if isinstance(event, Scores) and event.stream in by_name and event.end:
                c = by_name[event.stream]
                if not running:
                    until, running = time.monotonic() + seconds, True
                if c.start is None:
                    c.start = event.end[0] - 2 * SECOND
                c.t, c.nearest = event.end[-1], event.category[-1]
                c.scores = [*c.scores, *event.score][-48:]
            elif isinstance(event, Alert) and event.stream in by_name:
                c = by_name[event.stream]
                c.alert = event.type != "end"
                if event.type != "update":
                    said = Text.assemble(line(event), f"  (doing: {c.doing()})")
                    news.append(said)
                    if not out.is_terminal:
                        out.print(said, soft_wrap=True)
            if out.is_terminal and time.monotonic() - drawn > 0.1:
                drawn = time.monotonic()
                live.update(_picture(cameras, news[-8:], min(left, seconds)))
    raised = sum("NEW" in n.plain for n in news)
    judged = ", ".join(f"{c.name} {c.scores[-1]:.2f}" for c in cameras if c.scores)
    say(f"last scores: {judged or 'none'} (1.00 is the limit of normal); {raised} alert(s) raised")


def _picture(cameras: list[Camera], news: list[Text], left: float) -> Group:
    table = Table(
        "camera", "doing", "nearest normal", "score", "over time (red: beyond the limit of normal)", expand=True
    )
    for c in cameras:
        score = f"{c.scores[-1]:.2f}" if c.scores else "–"
        style = "bold red" if c.alert else ""
        table.add_row(
            c.name, c.doing(), c.nearest, Text(score, style), Newest(c.scores), style="on grey11" if c.alert else ""
        )
    title = Text(f"haad-edge demo: {left:3.0f} s left, Ctrl-C to stop", "bold")
    return Group(title, table, *news)
