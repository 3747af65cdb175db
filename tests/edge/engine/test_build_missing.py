"""A plan that is missing is built by a process of its own: what is said of it, and who waits for whom."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.bundle import BASE, Bundle, open_bundle
from edge.engine.fallback import build_plan
from edge.errors import EngineError

from .test_plans import ORIN, put


def test_a_build_that_fails_says_what_the_builder_said() -> None:
    from edge.engine.machine import this_machine

    if not this_machine().problem:
        pytest.skip("here a plan can be built")
    with pytest.raises(EngineError, match="no plan could be built for this machine") as e:
        build_plan(open_bundle())
    assert e.value.why == f"no plan can be built here: {this_machine().problem}"
    assert e.value.fix.startswith("build on the machine that will run the plan")


def a_builder(tmp_path: Path, script: str) -> Path:
    """Something to run in Python's place."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "the builder was ended by SIGKILL, usually because memory ran out"),
        ("echo a warning >&2; kill -SEGV $$", "the builder was ended by SIGSEGV"),
        ("exit 3", "the builder ended with exit code 3"),
    ],
)
def test_a_builder_that_was_ended_is_told_of_and_not_what_it_had_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(a_builder(tmp_path, f"echo compiling, this takes a while; {script}")))
    with pytest.raises(EngineError) as e:
        build_plan(open_bundle())
    assert e.value.why == said and e.value.fix.startswith("haad-edge build ")


def test_what_a_library_wrote_before_the_error_is_not_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime does about CPUs that it does not know, whenever it is loaded."""
    noise = "onnxruntime cpuid_info warning: Unknown CPU vendor. cpuinfo_vendor value: 0"
    text = f"{noise}\nerror: no room\n  why: the disk is full\n  next: delete something\n"
    (tmp_path / "said").write_text(text)
    monkeypatch.setattr(sys, "executable", str(a_builder(tmp_path, f"cat {tmp_path / 'said'} >&2; exit 2")))
    with pytest.raises(EngineError) as e:
        build_plan(open_bundle())
    assert (e.value.why, e.value.fix) == ("no room: the disk is full", "delete something")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_does_not_outlive_who_asked_for_it(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    builder = a_builder(tmp_path, f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60")
    asks = f"import sys; sys.executable = {str(builder)!r}\n" + (
        "from edge.bundle import open_bundle; from edge.engine.fallback import build_plan; build_plan(open_bundle())"
    )
    process = subprocess.Popen([sys.executable, "-c", asks])
    until = time.monotonic() + 60
    while not pid.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == -number
    while Path(f"/proc/{int(pid.read_text())}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert time.monotonic() < until


@pytest.fixture
def copied(tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(BASE, tmp_path / "bundle"))


def test_two_that_miss_a_plan_build_one(copied: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two engines of one host do at its start."""
    made, root = tmp_path / "made", Path(__file__).parents[3]
    made.touch()
    code = (
        "import sys, time; from edge.bundle import locked, open_bundle; from tests.edge.engine.test_plans import put; "
        "time.sleep(1); b = open_bundle(sys.argv[1])\n"
        "with locked(b.root): put(b)"  # as `add_to_bundle`: who waits for the builder must not hold what it needs
    )
    command = f"exec timeout 60 {sys.executable} -c '{code}' {copied.root}"
    builder = a_builder(tmp_path, f"echo once >> {made}; cd {root} && {command}")
    monkeypatch.setattr("edge.engine.fallback.this_machine", lambda: ORIN)
    monkeypatch.setattr(sys, "executable", str(builder))
    found: list[Bundle] = []
    both = [threading.Thread(target=lambda: found.append(build_plan(copied))) for _ in range(2)]
    for t in both:
        t.start()
    for t in both:
        t.join()
    assert made.read_text() == "once\n" and len(found) == 2
    assert all("engines/tensorrt-10.3.0-sm87-fp16/engine.plan" in b.manifest.files for b in found)


def test_a_plan_that_was_there_already_is_built_anew(
    copied: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT refused it; nobody else has built another."""
    made = tmp_path / "made"
    monkeypatch.setattr("edge.engine.fallback.this_machine", lambda: ORIN)
    monkeypatch.setattr(sys, "executable", str(a_builder(tmp_path, f'echo "$@" > {made}')))
    build_plan(put(copied, asked=["--batch", "1:64:256"]))
    words = f"-m edge build {copied.root} --target tensorrt --precision fp16 --batch 1:64:256"
    assert made.read_text() == f"{words}\n"
