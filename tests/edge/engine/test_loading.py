"""An ONNX Runtime that would end the process when it is loaded: an error instead, and no cost elsewhere."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import open_bundle
from edge.commands import doctor
from edge.engine import loading, open_engine
from edge.errors import EngineError


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    loading.check_loading.cache_clear()
    yield
    loading.check_loading.cache_clear()


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that says it is an Arm one with offline CPUs; returns where other processes find onnxruntime first."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(loading, "_installed", lambda: "1.23.2")
    (tmp_path / "offline").write_text("8-11\n")
    monkeypatch.setattr(loading, "OFFLINE", tmp_path / "offline")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "onnxruntime.py"


def test_where_it_would_abort_the_error_says_why_and_doctor_goes_on(orin: Path) -> None:
    orin.write_text("import os; os.abort()")
    for _ in range(2):
        with pytest.raises(EngineError, match=r"^ONNX Runtime 1.23.2 ends the process when it is loaded here: ") as e:
            open_engine(open_bundle())
        assert e.value.why == "before 1.27 it does that on Arm machines with offline CPUs; here 8-11 are offline"
        assert "sudo nvpmodel -m 0" in e.value.fix and "onnxruntime>=1.27" in e.value.fix
    found = {f.name: f for f in doctor.examine()}
    assert found["engine onnx"].verdict == "broken" and "8-11 are offline" in found["engine onnx"].detail
    assert found["journal"].verdict == "ok"


@pytest.mark.parametrize("text", ["", "raise ImportError('a library is missing')"])
def test_where_it_loads_or_raises_nothing_is_said(orin: Path, text: str) -> None:
    orin.write_text(text)
    loading.check_loading()


@pytest.mark.parametrize(
    ("machine", "version", "tried"),
    [
        ("x86_64", "1.23.2", 0),
        ("aarch64", "1.27.0", 0),
        ("aarch64", "2.0", 0),
        ("aarch64", "1.9.0", 1),
        ("aarch64", "1.26.0", 1),
        ("aarch64", "", 1),
    ],
)
def test_it_is_tried_only_where_it_may_abort_and_once(
    monkeypatch: pytest.MonkeyPatch, machine: str, version: str, tried: int
) -> None:
    calls: list[Any] = []

    def run(*a: Any, **k: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(a)
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(loading, "_installed", lambda: version)
    monkeypatch.setattr(subprocess, "run", run)
    loading.check_loading()
    loading.check_loading()
    assert len(calls) == tried
