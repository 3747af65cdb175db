"""How a network is made, on each kind of TensorRT; `test_rtx.py` has a real one, whose networks are always typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.islands import ISLANDS
from builder.plan import (
    PlanSpec,
    _load_timings,
    _save_timings,
    _weakly_typed,
    create_network,
    interruptible,
    is_typed,
    make_plan,
)
from edge.errors import EngineError


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"EXPLICIT_BATCH": 0}, 0b1),
        ({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 0b11),
        ({"STRONGLY_TYPED": 1}, 0b10),
        ({"STRONGLY_TYPED": 4}, 0b10000),
    ],
    ids=["8", "10", "11", "other numbers"],
)
def test_a_network_is_bound_to_its_types_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, int], expected: int
) -> None:
    trt = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(**flags))
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert create_network(SimpleNamespace(create_network=lambda given: given)) == expected  # type: ignore[arg-type, comparison-overlap]
    assert is_typed() == ("STRONGLY_TYPED" in flags)


class AnyLayer:
    """A layer without tensors."""

    num_inputs = num_outputs = 0
    type = "ELEMENTWISE"

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("asked", "unknown"),
    [([], ""), (["/encoder/leave/"], ""), (["/encoder/leave/", "/encoder/laeve/"], "/encoder/laeve/")],
)
def test_a_part_to_keep_in_float32_that_is_not_there_is_named_where_precision_is_a_flag(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], unknown: str
) -> None:
    kinds = {k: k for k in ("CONCATENATION", "GATHER", "SLICE", "SHUFFLE", "CONSTANT")}
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(FP16=0, PREFER_PRECISION_CONSTRAINTS=1),
        LayerType=SimpleNamespace(**kinds),
        float32=0,
    )
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    layers = [AnyLayer(n) for n in ("/encoder/unit/Sqrt", "/encoder/leave/MatMul", "/encoder/Relu_1", "(Unnamed)")]
    network: Any = SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i], num_inputs=0)
    config: Any = SimpleNamespace(set_flag=lambda flag: None)
    spec = PlanSpec("", {}, half=True, islands=[*ISLANDS, *asked], workspace=1)
    if not unknown:
        return _weakly_typed(network, config, spec)
    with pytest.raises(EngineError, match=f"begins with '{unknown}'") as e:
        _weakly_typed(network, config, spec)
    assert "/encoder/leave /encoder/Relu_1" in e.value.why and "unit" not in e.value.why


def test_ctrl_c_ends_a_build_at_once() -> None:
    """TensorRT drops what Python raises in its log."""
    script = (
        "import os, signal, time; from builder.plan import interruptible\n"
        "with interruptible():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(30)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=20).returncode == -signal.SIGINT


def test_a_plan_is_made_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())
    monkeypatch.setattr("builder.plan.make_log", lambda: seen.append(signal.getsignal(signal.SIGINT)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_plan(b"", PlanSpec("", {}, half=False, islands=[], workspace=1))
    assert seen == [signal.SIG_DFL] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_python_s_again_behind_a_build_and_another_s_stays_so() -> None:
    with interruptible():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with interruptible():
                pass
        except ValueError as e:  # only the main thread may set a handler
            failed.append(e)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed and signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Timings:
    """A builder's configuration that knows its own timings, and none of other machines."""

    def create_timing_cache(self, data: bytes) -> bytes | None:
        return data if data in (b"", b"its own") else None

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        return not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(b"its own"))


def test_a_file_of_timings_is_made_and_read_again_also_through_a_link(tmp_path: Path) -> None:
    config: Any = Timings()
    (tmp_path / "link").symlink_to("timings.bin")
    for _ in range(2):
        _load_timings(config, tmp_path / "link")
        _save_timings(config, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "timings.bin").read_bytes() == b"its own"


def test_a_file_that_holds_no_timings_is_left_as_it_is(tmp_path: Path) -> None:
    """It may be anything: somebody's weights, or the timings of another machine."""
    (tmp_path / "weights").write_bytes(b"weights")
    config: Any = Timings()
    with pytest.raises(EngineError, match="weights: not a timing cache of this TensorRT"):
        _load_timings(config, tmp_path / "weights")
    _load_timings(config, None)
    assert (tmp_path / "weights").read_bytes() == b"weights"
