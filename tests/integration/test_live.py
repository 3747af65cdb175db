"""Recordings, live examples and accepted alerts, with real processes: what the operator types, and what comes of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.clip import save_clip
from edge.events import Alert, Status
from edge.motion import make_motion
from edge.recordings.recording import read

from .conftest import Engine, haad, send_clips


def began(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture
def support(tmp_path: Path, made_support: Path) -> Path:
    return Path(shutil.copytree(made_support, tmp_path / "support"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("clips")
    for name in ("walk", "fall", "lift_box", "wave"):
        save_clip(root / f"{name}.npz", make_motion(name, seconds=8, seed=3))
    return {p.stem: p for p in root.glob("*.npz")}


def said(engine: Engine) -> list[tuple[str, str, str, int, int, str]]:
    """The alerts in order of their stream, each with all that must not depend on pace or batches."""
    alerts = [e for e in engine.events if isinstance(e, Alert)]
    return sorted((a.stream, a.id, a.type, a.start, a.end, a.category) for a in alerts)


def test_the_same_recording_gives_the_same_alerts(
    start: Callable[..., Engine], support: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    out = f"ipc://{tmp_path}/poses"
    first = start(support, "--poses-out", f"pub+bind:{out}")
    recorder = began("record", "--from", f"sub+connect:{out}", "--out", tmp_path / "r.haad")
    assert recorder.stderr and "recording" in recorder.stderr.readline()
    # What counts is sent once the recorder has heard something: the engine looks for listeners when poses come.
    warm, recorder_looks = 0, threading.Event()
    while not (tmp_path / "r.haad").exists() or (tmp_path / "r.haad").stat().st_size < 100:
        warm += send_clips(first.ingest, "warm", [clips["walk"]], speed=0)
        first.until_frames(warm)
        recorder_looks.wait(0.2)
    sent = warm
    for k, names in enumerate((("lift_box", "fall"), ("walk", "fall", "walk"), ("fall", "lift_box"))):
        sent += send_clips(first.ingest, f"cam{k}", [clips[n] for n in names], fps=15, as_one=True)
    first.until_frames(sent)
    recorder.terminate()
    stdout, stderr = recorder.communicate(timeout=30)
    assert recorder.returncode == 0 and "of 4 streams" in stdout and "never came" not in stderr, stdout + stderr
    messages = list(read(tmp_path / "r.haad"))
    assert sum(m.message.startswith(b"pose/cam") for m in messages) == sent - warm
    assert first.stop() == 0

    found = []
    for number, options in enumerate(((), (), ("--max-batch", "2"))):
        address = f"tcp://127.0.0.1:{free_port()}"
        engine = start(support, "--ingest", f"pull+bind:{address}", "--overload", "wait", *options)
        speed = 0 if number < 2 else 8
        done = haad("replay", tmp_path / "r.haad", "--to", f"push+connect:{address}", "--speed", speed)
        assert f"{len(messages)} messages sent" in done.stdout
        engine.until_frames(len(messages))
        assert engine.stop() == 0
        found.append(said(engine))
    assert found[0] == found[1] == found[2]
    assert {a[0] for a in found[0]} == {"cam0", "cam1", "cam2"} and {a[2] for a in found[0]} >= {"new", "end"}
    live = [a for a in said(first) if a[0] != "warm"]
    assert [a for a in found[0] if a[0] != "warm"] == live, "and those that were raised when it was recorded"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_what_a_camera_shows_becomes_an_example_while_the_engine_runs(
    start: Callable[..., Engine], support: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    out = f"ipc://{tmp_path}/poses"
    engine = start(support, "--poses-out", f"pub+bind:{out}", "--reload-every", "0.2")
    original = engine.until(lambda e: isinstance(e, Status)).by.support
    add = ("support", "add", "--support", support, "--poses", f"sub+connect:{out}", "--category", "waving")
    live = began(*add, "--from-stream", "cam1", "--track", "0", "--seconds", "3", "--wait", "60")
    send_clips(engine.ingest, "cam1", [clips["wave"]], seconds=16, speed=2)
    while live.poll() is None:
        send_clips(engine.ingest, "cam1", [clips["wave"]], seconds=16, speed=2)
    stdout, stderr = live.communicate()
    assert live.returncode == 0 and "version 2" in stdout and "name waving there too" in stdout, stdout + stderr
    engine.until(lambda e: isinstance(e, Status) and "waving (1)" in engine.said())
    table = haad("support", "list", "--support", support).stdout
    assert "added cam1 track 0 to waving" in table and "found as it was" in table
    haad("support", "rename", "waving", "wave", "--support", support)
    engine.until(lambda e: isinstance(e, Status) and "wave (1)" in engine.said())
    haad("support", "undo", "--support", support)
    haad("support", "undo", "--support", support)
    # Said at the start, and again when the folder is as it was then.
    engine.until(lambda e: isinstance(e, Status) and engine.said().count(f"support {original}: ") == 2)
    assert not (support / "wave").exists() and not (support / "waving").exists()
    for arguments, text in (
        (("remove", "nothing"), "there is no 'nothing'"),
        (("undo",), "nothing to undo"),
        (("add", "--category", "x"), "no camera is named"),
        (("add", "--category", "x", "--from", tmp_path / "none"), "cannot be read"),
        (("accept", "abcd", "--evidence", tmp_path), "nothing is kept of alert abcd"),
        (("accept", "abcd"), "the folder with the movement behind alerts is not known"),
    ):
        done = haad("support", *arguments, "--support", support, ok=False)
        assert done.returncode == 2 and text in done.stderr, done.stderr
    silent = haad(*add, "--from-stream", "cam9", "--wait", "0.3", ok=False)
    assert "no message of any stream came" in silent.stderr
    assert engine.stop() == 0 and "Traceback" not in engine.said()


def test_an_accepted_alert_is_not_raised_again(
    start: Callable[..., Engine], support: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    engine = start(support, "--evidence", str(tmp_path / "evidence"), "--reload-every", "0.2")
    sent = send_clips(engine.ingest, "hall", [clips["wave"]], seconds=8)
    engine.until_frames(sent)
    alert = engine.until(lambda e: isinstance(e, Alert) and e.type == "end") if not said(engine) else None
    alert = alert or next(e for e in engine.events if isinstance(e, Alert))
    assert isinstance(alert, Alert)
    done = haad(
        "support", "accept", alert.id, "--support", support, "--evidence", tmp_path / "evidence", "--category", "wave"
    )
    assert f"accepted {alert.id} as wave" in done.stdout and "name wave there too" in done.stdout
    assert (support / "wave" / f"alert_{alert.id}.npz").exists()
    engine.until(lambda e: isinstance(e, Status) and "wave (1)" in engine.said())
    engine.events.clear()
    sent += send_clips(engine.ingest, "hall", [clips["wave"]], seconds=8)
    engine.until_frames(sent)
    assert engine.stop() == 0
    assert not [e for e in engine.events if isinstance(e, Alert)]
    assert "Traceback" not in engine.said()
