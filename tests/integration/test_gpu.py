"""On a machine with a GPU, TensorRT and pycuda: what a user types there, as processes. `pytest -m gpu`."""

from __future__ import annotations

import os
import re
import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bundle import BASE
from edge.clip import save_clip
from edge.engine.machine import this_machine
from edge.events import Alert, Scores, Status
from edge.motion import make_motion

from ..edge.engine import gpu_fault
from .conftest import Engine, haad, send_clips

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(this_machine().problem), reason=this_machine().problem or "-"),
]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` with a plan that `haad-edge build` made."""
    copy = Path(shutil.copytree(BASE, tmp_path_factory.mktemp("planned") / "bundle"))
    haad("build", copy, "--target", "tensorrt", "--batch", "1:16:64", seconds=800)
    return copy


def plan_of(bundle: Path) -> Path:
    (plan,) = bundle.glob("engines/tensorrt-*/*.plan")
    return plan


def test_a_built_plan_is_inspected_and_verified(planned: Path) -> None:
    gpu = this_machine().gpu
    assert gpu
    assert gpu.name in haad("inspect", planned).stdout.replace("\n", " ")
    assert plan_of(planned).parent.name in haad("verify", planned).stdout.replace("\n", "")


Found = tuple[list[tuple[object, ...]], dict[tuple[object, ...], float]]


def found(engine: Engine) -> Found:
    """The alerts, and the score of every window."""
    alerts = [e for e in engine.events if isinstance(e, Alert)]
    scores = [e for e in engine.events if isinstance(e, Scores)]
    return (
        sorted((a.stream, a.id, a.type, a.start, a.category) for a in alerts),
        {(e.stream, *key): s for e in scores for *key, s in zip(e.track, e.end, e.score, strict=True)},
    )


def assert_same(a: Found, b: Found) -> None:
    assert a[0] == b[0] and {kind for _, _, kind, *_ in a[0]} >= {"new", "end"}
    assert a[1].keys() == b[1].keys() and len(a[1]) > 20
    assert max(abs(a[1][k] - b[1][k]) for k in a[1]) < 0.05  # 2e-3 of distance, by a limit of 0.1 or so


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.npz" for name in ("walk", "fall", "lift_box")]
    for path in paths:
        save_clip(path, make_motion(path.stem, seconds=8, seed=3))
    return paths


def test_run_takes_the_plan_and_says_what_onnx_runtime_says(
    start: Callable[..., Engine], made_support: Path, planned: Path, clips: list[Path]
) -> None:
    results = []
    for kind in ("tensorrt", "onnx"):
        engine = start(made_support, "--bundle", str(planned), "--engine", kind, "--overload", "wait")
        status = engine.until(lambda e: isinstance(e, Status))
        assert status.by.engine.startswith(kind), engine.said()
        sent = sum(send_clips(engine.ingest, f"cam{n}", [clip], fps=15) for n, clip in enumerate(clips))
        engine.until_frames(sent)
        assert engine.stop() == 0, engine.said()
        results.append(found(engine))
    assert_same(*results)


def test_run_goes_on_without_the_gpu_when_it_is_lost(
    start: Callable[..., Engine],
    made_support: Path,
    planned: Path,
    clips: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "fault").mkdir()
    shutil.copy(gpu_fault.__file__, tmp_path / "fault" / "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fault"), prepend=os.pathsep)
    monkeypatch.setenv("BREAK_GPU_AT", str(tmp_path / "now"))
    options = ("--bundle", str(planned), "--overload", "wait", "--engine")
    engine, exact = start(made_support, *options, "tensorrt,onnx"), start(made_support, *options, "onnx")
    assert engine.until(lambda e: isinstance(e, Status)).by.engine.startswith("tensorrt"), engine.said()
    sent = send_clips(engine.ingest, "cam0", clips[:1], fps=15)
    engine.until_frames(sent)
    (tmp_path / "now").touch()
    deadline = time.monotonic() + 60
    while not (tmp_path / "now").read_text():
        assert time.monotonic() < deadline and not time.sleep(0.02), engine.said()
    sent += sum(send_clips(engine.ingest, f"cam{n}", [clip], fps=15) for n, clip in enumerate(clips) if n)
    status = engine.until_frames(sent)
    assert (status.state, status.by.engine[:4]) == ("online", "onnx"), engine.said()
    with urllib.request.urlopen(f"http://{engine.page()}/metrics", timeout=10) as page:
        assert re.search(r"^haad_engine_fallbacks\S* 1\.0$", page.read().decode(), re.MULTILINE)
    assert engine.stop() == 0, engine.said()
    assert any(isinstance(e, Status) and e.state == "degraded" and "GPU is lost" in e.reason for e in engine.events)
    assert engine.said().count("GPU is lost") == 1 and "PyCUDA" not in engine.said(), engine.said()

    exact.until_frames(sum(send_clips(exact.ingest, f"cam{n}", [clip], fps=15) for n, clip in enumerate(clips)))
    assert exact.stop() == 0
    assert_same(found(engine), found(exact))


def test_a_damaged_plan_is_one_line_and_onnx_runtime_stands_in(
    start: Callable[..., Engine], made_support: Path, planned: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(planned, tmp_path / "bundle"))
    plan = plan_of(copy)
    plan.write_bytes(plan.read_bytes()[:-1] + b"x")
    for command in (("verify", copy), ("run", "--support", made_support, "--bundle", copy, "--engine", "tensorrt")):
        done = haad(*command, ok=False)
        assert "engine.plan" in done.stdout + done.stderr, done
    engine = start(made_support, "--bundle", str(copy), "--engine", "tensorrt,onnx")
    status = engine.until(lambda e: isinstance(e, Status))
    assert status.by.engine.startswith("onnx") and "engine.plan" in engine.said()


def test_a_start_that_fails_once_the_gpu_is_open_ends_with_its_error_alone(planned: Path, tmp_path: Path) -> None:
    """Nothing of pycuda's or TensorRT's is left to be taken down after the context."""
    (tmp_path / "support" / "walk").mkdir(parents=True)
    (tmp_path / "support" / "walk" / "1.npz").write_bytes(b"no clip")
    words = ("run", "--support", tmp_path / "support", "--bundle", planned, "--engine", "tensorrt")
    done = haad(*words, ok=False)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done
    assert not any(word in done.stderr.lower() for word in ("cuda", "tensorrt", "warning"))
