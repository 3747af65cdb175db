"""On a machine with a GPU, TensorRT and pycuda: what a user types there, as processes. `pytest -m gpu`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bundle import BASE
from edge.clip import save_clip
from edge.engine.machine import this_machine
from edge.events import Alert, Scores, Status
from edge.motion import make_motion

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


def test_run_takes_the_plan_and_says_what_onnx_runtime_says(
    start: Callable[..., Engine], made_support: Path, planned: Path, tmp_path: Path
) -> None:
    clips = []
    for name in ("walk", "fall", "lift_box"):
        save_clip(tmp_path / f"{name}.npz", make_motion(name, seconds=8, seed=3))
        clips.append(tmp_path / f"{name}.npz")
    alerts, scores = [], []
    for kind in ("tensorrt", "onnx"):
        engine = start(made_support, "--bundle", str(planned), "--engine", kind, "--overload", "wait")
        status = engine.until(lambda e: isinstance(e, Status))
        assert status.by.engine.startswith(kind), engine.said()
        sent = sum(send_clips(engine.ingest, f"cam{n}", [clip], fps=15) for n, clip in enumerate(clips))
        engine.until_frames(sent)
        assert engine.stop() == 0, engine.said()
        found = [e for e in engine.events if isinstance(e, Alert)]
        alerts.append(sorted((a.stream, a.id, a.type, a.start, a.category) for a in found))
        heard = [e for e in engine.events if isinstance(e, Scores)]
        scores.append({(e.stream, *key): s for e in heard for *key, s in zip(e.track, e.end, e.score, strict=True)})
    assert alerts[0] == alerts[1] and {a[2] for a in alerts[0]} >= {"new", "end"}
    both = scores[0].keys() & scores[1].keys()
    assert len(both) > 20
    assert max(abs(scores[0][k] - scores[1][k]) for k in both) < 0.05  # 2e-3 of distance, by a limit of 0.1 or so


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
