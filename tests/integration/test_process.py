"""The engine as a process: what it survives, what it says, how it stops."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from edge.bundle import BASE
from edge.clip import save_clip
from edge.events import Alert, Scores, Status
from edge.motion import make_motion

from .conftest import Engine, send_clips


def get(page: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{page}{path}", timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def metric(page: str, name: str) -> float:
    lines = [line for line in get(page, "/metrics")[1].splitlines() if line.startswith(name + " ")]
    assert len(lines) == 1, name
    return float(lines[0].split()[-1])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("clips")
    for name in ("walk", "fall", "lift_box"):
        save_clip(root / f"{name}.npz", make_motion(name, seconds=6, seed=3))
    return {p.stem: p for p in root.glob("*.npz")}


def body(**changes: object) -> bytes:
    m = {"v": 1, "seq": 0, "t": 1, "layout": "core15", "ids": [1], "joints": b"\0" * 180, "c": 3}
    return b"pose/bad\0" + msgpack.packb({k: v for k, v in {**m, **changes}.items() if v is not None})


MALFORMED: dict[str, bytes | list[bytes]] = {
    "empty": b"",
    "no topic": b"hello",
    "not msgpack": b"pose/bad\0\xc1\xc1",
    "a pickle": b"pose/bad\0" + pickle.dumps({"v": 1}),
    "truncated": body()[:-40],
    "a list": b"pose/bad\0" + msgpack.packb([1, 2, 3]),
    "three parts": [b"pose/bad", b"x", b"y"],
    "another version": body(v=9),
    "seq a text": body(seq="0"),
    "t negative": body(t=-5),
    "t a float": body(t=1.5),
    "unknown layout": body(layout="octopus8"),
    "layout a number": body(layout=15),
    "ids missing": body(ids=None),
    "ids doubled": body(ids=[1, 1], joints=b"\0" * 360),
    "blob too short": body(joints=b"\0" * 179),
    "ragged lists": body(joints=[[[1, 2, 3], [1, 2]]]),
    "joints a text": body(joints="x"),
    "a million joints": body(joints=b"\0" * 12_000_000),
    "far too many people": body(ids=list(range(5_000)), joints=None),
    "c is 4": body(c=4),
    "visible of another shape": body(visible=b"\0" * 8),
    "size nought": body(size=[0, 0]),
    "end a number": body(end=3),
    "deeply nested": b"pose/bad\0" + b"\x91" * 100_000,
    "a huge array claimed": b"pose/bad\0\xdd\xff\xff\xff\xff",
    "a huge map claimed": b"pose/bad\0\xdf\xff\xff\xff\xff",
    "topic not text": b"pose/\xff\xfe\0\x80",
}


def test_malformed_messages_are_counted_and_named_while_another_camera_is_served(
    start: Callable[..., Engine], made_support: Path, clips: dict[str, Path]
) -> None:
    engine = start(made_support)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    vandal = context.socket(zmq.XPUB)
    try:
        vandal.connect(engine.ingest.split(":", 1)[1])
        assert vandal.poll(10_000)
        for message in MALFORMED.values():
            vandal.send_multipart(message if isinstance(message, list) else [message])
        # NaN is not refused: those joints are hidden. It says how far the engine has read.
        nan = np.full(45, np.nan, "<f4").tobytes()
        vandal.send(body(joints=nan))
        sent = send_clips(engine.ingest, "good", [clips["walk"]], end=False)
        status = engine.until_frames(sent + 1)
        assert status.state == "online" and status.frames == sent + 1
        page = engine.page()
        text = get(page, "/metrics")[1]
        dropped = {
            line.split('"')[1]: float(line.split()[-1]) for line in text.splitlines() if "dropped_total{" in line
        }
        # SUB filters by topic: what does not begin with pose/ never arrives.
        filtered = {"empty", "no topic"}
        assert sum(dropped.values()) == len(MALFORMED) - len(filtered)
        assert metric(page, "haad_bad_joints_total") == 15
        for name in ("field_layout", "field_ids", "field_joints", "msgpack", "version", "too_many_people", "too_large"):
            assert dropped[name] >= 1, dropped
        assert "octopus8" in engine.said()
        scored = [e for e in engine.events if isinstance(e, Scores)]
        assert {e.stream for e in scored} == {"good"} and sum(len(e.track) for e in scored) >= 15
        assert engine.stop() == 0
        assert "Traceback" not in engine.said()
    finally:
        vandal.close(0)
        context.term()


def test_a_fall_is_reported_with_everything_an_alert_promises(
    start: Callable[..., Engine], made_support: Path, clips: dict[str, Path]
) -> None:
    engine = start(made_support)
    sent = send_clips(engine.ingest, "depot", [clips["lift_box"], clips["fall"]], as_one=True)
    engine.until_frames(sent)
    assert engine.stop() == 0
    alerts = [e for e in engine.events if isinstance(e, Alert)]
    assert alerts[0].type == "new" and alerts[-1].type == "end"
    assert [a.seq for a in alerts] == list(range(len(alerts)))
    new, end = alerts[0], alerts[-1]
    assert new.id == end.id and (new.stream, new.track) == ("depot", 0)
    assert new.category in ("walk", "lift_box") and 1 <= len(new.joints) <= 3
    assert new.start <= new.end <= end.end and end.peak >= new.peak >= new.score >= 1
    scores = [e for e in engine.events if isinstance(e, Scores)]
    assert [s.seq for s in scores] == list(range(len(scores))) and engine.subscriber.missed == 0
    assert new.by == scores[0].by and new.by.model.startswith("base-") and "onnxruntime" in new.by.engine


def test_systemd_hears_of_a_start_a_life_and_a_stop(
    start: Callable[..., Engine], made_support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        engine = start(made_support)
        told = [s.recv(4096) for _ in range(3)]
        assert told == [b"READY=1", *[b"STATUS=online: ok\nWATCHDOG=1"] * 2]
        assert engine.stop() == 0
        while s.recv(4096) != b"STOPPING=1":
            pass


def test_sigterm_drains_says_goodbye_and_leaves_nothing_behind(
    start: Callable[..., Engine], made_support: Path, clips: dict[str, Path]
) -> None:
    engine = start(made_support)
    sent = send_clips(engine.ingest, "cam", [clips["walk"]], end=False)
    engine.until_frames(1)
    assert engine.stop() == 0
    states = [e for e in engine.events if isinstance(e, Status)]
    assert [s.state for s in states[-2:]] == ["draining", "offline"]
    assert states[-1].frames == sent, "what was sent before the signal was taken"
    assert f"stopped: {sent} frames in, 0 lost" in engine.said()


def test_the_page_tells_health_readiness_and_figures(
    start: Callable[..., Engine], made_support: Path, clips: dict[str, Path]
) -> None:
    engine = start(made_support)
    page = engine.page()
    assert get(page, "/healthz") == (200, "alive\n")
    assert get(page, "/readyz") == (200, "online: ok\n")
    assert get(page, "/nothing")[0] == 404
    sent = send_clips(engine.ingest, "cam", [clips["walk"]], end=False)
    engine.until_frames(sent)
    assert metric(page, "haad_frames_total") == sent
    assert metric(page, "haad_frames_lost_total") == 0
    assert metric(page, "haad_windows_total") == metric(page, "haad_latency_seconds_count") > 10


def test_a_new_category_is_taken_up_without_a_lost_frame(
    start: Callable[..., Engine], made_support: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    support = tmp_path / "support"
    shutil.copytree(made_support, support)
    engine = start(support, "--reload-every", "0.05")
    first = send_clips(engine.ingest, "before", [clips["fall"]])
    engine.until_frames(first)
    old = engine.subscriber.wait(10).by.support
    for k in range(3):
        save_clip(tmp_path / "new" / f"{k}.npz", make_motion("fall", seconds=6, seed=60 + k))
    (tmp_path / "new").rename(support / "fall")
    engine.until(lambda e: isinstance(e, Status) and e.by.support != old)
    second = send_clips(engine.ingest, "after", [clips["fall"]])
    status = engine.until_frames(first + second)
    assert status.frames_lost == 0 and engine.stop() == 0
    peak = {
        name: max(s for e in engine.events if isinstance(e, Scores) and e.stream == name for s in e.score)
        for name in ("before", "after")
    }
    assert peak["before"] > 1 > peak["after"], peak
    assert {e.by.support for e in engine.events if isinstance(e, Scores) and e.stream == "after"} == {status.by.support}


def haad(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", **env},
    )


def test_what_cannot_start_says_why_and_what_next(made_support: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "walk").mkdir(parents=True)
    (tmp_path / "bad" / "walk" / "x.npz").write_bytes(pickle.dumps([1]))
    shutil.copytree(BASE, tmp_path / "altered")
    graph = bytearray((tmp_path / "altered" / "encoder.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (tmp_path / "altered" / "encoder.onnx").write_bytes(bytes(graph))
    quiet = (
        "--metrics",
        "off",
        "--ingest",
        f"sub+bind:ipc://{tmp_path}/in",
        "--alerts",
        f"pub+bind:ipc://{tmp_path}/out",
    )
    good = ("--support", str(made_support))
    for arguments, words in (
        ((), ("no support folder", "--support DIR")),
        (("--support", str(tmp_path / "empty")), ("no clips", "empty")),
        (("--support", str(tmp_path / "bad")), ("no usable clip", "x.npz", "pickle")),
        ((*good, "--bundle", str(tmp_path)), ("not a bundle", "haad-edge train")),
        ((*good, "--bundle", str(tmp_path / "altered")), ("encoder.onnx", "sha256", "so it was not loaded")),
        ((*good, "--stride", "-1"), ("'stride'", "the command line", "must be above 0")),
        ((*good, "--ingest", "pub+bind:tcp://1.2.3.4:5"), ("'ingest'", "not understood")),
        ((*good, "--ingest", "sub+bind:tcp://0.0.0.0:5599"), ("reachable from other hosts", "allow-remote")),
    ):
        options = [*quiet] if "--ingest" not in arguments else [*quiet[:2], *quiet[4:]]
        done = haad("run", *options, *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert all(w in done.stderr for w in words), (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert "'max_batch' from HAAD_MAX_BATCH" in haad("run", *good, HAAD_MAX_BATCH="many").stderr


def test_publish_run_and_listen_work_together_from_the_shell(
    start: Callable[..., Engine], made_support: Path, clips: dict[str, Path]
) -> None:
    engine = start(made_support)
    listener = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edge.cli",
            "listen",
            "--from",
            engine.alerts,
            "--json",
            "--scores",
            "--status",
            "--timeout",
            "20",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    first = json.loads(listener.stdout.readline())
    assert first["kind"] == "status" and first["state"] == "online"
    sent = haad("publish", str(clips["fall"]), "--to", engine.ingest, "--stream", "lab", "--speed", "0", "--fps", "30")
    assert "lab: 181 frames sent" in sent.stdout, sent
    engine.until(lambda e: isinstance(e, Alert) and e.type == "end")
    assert engine.stop() == 0
    said = []
    for line in listener.stdout:
        said.append(json.loads(line))
        if said[-1].get("state") == "offline":
            break
    listener.kill()
    listener.wait()
    kinds = [m["kind"] for m in said]
    assert "alert" in kinds and "scores" in kinds
    assert next(m for m in said if m["kind"] == "alert")["type"] == "new"


def test_a_second_engine_on_the_same_port_says_so(start: Callable[..., Engine], made_support: Path) -> None:
    engine = start(made_support)
    _, port = engine.page().rsplit(":", 1)
    done = haad("run", "--support", str(made_support), "--ingest", f"sub+bind:tcp://127.0.0.1:{port}")
    assert done.returncode == 2 and "in use" in done.stderr and "Two on one host" in done.stderr
