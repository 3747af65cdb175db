"""`haad-edge build --target tensorrt`, as far as it goes without a GPU: gate, ways, refusals, error texts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import builder.compile as made
from builder.compile import (
    PlanOptions,
    build_tensorrt,
)
from builder.half import to_half
from builder.inspect import inspect
from builder.islands import ISLANDS
from builder.together import widened
from builder.verify import verify
from builder.ways import TOGETHER
from edge.bundle import GRAPH, WEIGHTS, Bundle, open_bundle, write_bundle
from edge.cli import make_app
from edge.engine import open_engine
from edge.engine.machine import Gpu, Machine, this_machine
from edge.engine.record import Profile, read_plan
from edge.errors import BundleError, EngineError, MissingExtra, OutputError
from edge.skeleton import Float
from tests.edge.engine.test_plans import ORIN, put

EIGHTS = Profile(batch=[8, 16, 64], categories=[1, 4, 32], shots=[1, 8, 64])
SMALL = Profile(batch=[1, 4, 8], categories=[1, 2, 3], shots=[1, 8, 32])


class Twisted:
    """The real engine with something added to its embeddings' first number."""

    def __init__(self, bundle: Bundle, twist: float) -> None:
        self.inner, self.twist = open_engine(bundle, max_batch=8), twist
        self.staging, self.widest = self.inner.staging, (0, 0)
        self.rows = 0

    def bind(self, support: Float, mask: Float) -> None:
        self.widest = max(self.widest[0], support.shape[0]), max(self.widest[1], support.shape[1])
        self.inner.bind(support, mask)

    def run(self, n: int) -> tuple[Float, Float]:
        embedding, distance = self.inner.run(n)
        embedding[:, 0] += self.twist
        return embedding, distance + abs(self.twist)


class FakeCuda:
    toolkit = "12.4"

    def close(self) -> None: ...


def build_here(
    built: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    twist: float,
    precision: str = "fp16",
    refuses: str | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    **options: Any,
) -> tuple[list[Any], list[str], tuple[Bundle, Any] | BundleError]:
    """What was ordered, what was told, and what came of a build in which the real engine stands for every plan."""
    specs: list[Any] = []
    told: list[str] = []

    data, gpu = built.read(GRAPH), Gpu("Orin", "8.7", "12.6", "540.3.0")
    real, judged = Twisted(built, twist), Twisted(built, 0.0)
    for engine in (real, judged):
        engine.close = lambda: None  # type: ignore[attr-defined]

    def make_plan(graph: bytes, spec: Any) -> bytes:
        meanwhile()
        if refuses is not None and refuses in spec.islands and spec.request_half:
            raise EngineError("could not build the plan", why="Could not find any implementation")
        grouped = spec.shapes["joints"][0][0] == TOGETHER
        assert graph == (widened(data, TOGETHER) if grouped else data)
        specs.append(spec)
        return b"plan %d" % len(specs)

    def open_plan(bundle: Bundle, record: Any, plan: bytes, **kw: Any) -> Any:
        return real if specs[-1].half else judged

    monkeypatch.setattr(made, "this_machine", lambda: replace(ORIN, gpu=gpu, tensorrt="8.6.1"))
    monkeypatch.setattr("edge.engine.cuda.CudaDevice", FakeCuda)
    monkeypatch.setattr("builder.plan.is_typed", lambda: False)
    monkeypatch.setattr("builder.plan.make_plan", make_plan)
    monkeypatch.setattr(made, "open_plan", open_plan)
    monkeypatch.setattr(made.latency, "__defaults__", (3,))
    monkeypatch.setattr("builder.keep.sorted_by_cost", lambda *given: ["/encoder/leave/"])
    try:
        return specs, told, build_tensorrt(built, PlanOptions(precision, SMALL, **options), told.append)
    except BundleError as e:
        return specs, told, e


def test_a_build_orders_several_windows_at_once_and_single_ones_and_writes_what_passed(
    built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, told, made_ = build_here(built, monkeypatch, 0.0, float32=["/encoder/leave/"])
    assert not isinstance(made_, BundleError)
    assert [(o.half, o.request_half, o.islands) for o in specs] == [(True, True, [*ISLANDS, "/encoder/leave/"])] * 2
    assert [[s[0] for s in o.shapes["joints"]] for o in specs] == [[8, 8, 8], [1, 4, 8]]
    record = made_[1]
    number = {8: b"plan 1", 1: b"plan 2"}[record.together]
    assert (built.root / "engines" / record.target / "engine.plan").read_bytes() == number
    assert record.profile.batch == ([8, 8, 8] if record.together == 8 else [1, 4, 8])
    assert list(record.latency_ms) == ["1", "2", "4", "8"], "said for the sizes that were wished for"
    assert (
        record.target == "tensorrt-8.6.1-sm87-fp16"
        and record.gate.distance < 1e-4
        and "Orin" in told[0]
        and len(told) == 1
    )
    assert (record.gpu, record.driver, record.driver_release) == ("Orin", "12.6", "540.3.0")
    words = " ".join(record.asked)
    assert "--batch 1:4:8 --support" in words and words.endswith(" --float32 /encoder/leave/")
    assert read_plan(open_bundle(built.root), record.target) == record, "what was written can be read"


def test_a_plan_that_fails_its_gate_is_not_written(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    specs, _, refusal = build_here(built, monkeypatch, 0.05)
    assert isinstance(refusal, BundleError) and "the plan fails the gate" in str(refusal)
    assert [o.request_half for o in specs[:3]] == [True, True, False] and specs[-1].islands[-1] == "/encoder/leave/"
    assert not (built.root / "engines").exists()
    specs, _, whole = build_here(built, monkeypatch, 0.05, "fp32")
    assert not isinstance(whole, BundleError) and {(o.half, o.request_half, *o.islands) for o in specs} == {
        (False, False)
    }


def test_what_cannot_be_built_with_more_in_float32_is_no_way_out_of_a_refusal(
    built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, refusal = build_here(built, monkeypatch, 0.05, refuses="/encoder/leave/")
    assert isinstance(refusal, BundleError) and "the plan fails the gate" in str(refusal)
    assert refusal.fix == "use --precision fp32"


def test_what_was_added_to_the_bundle_meanwhile_stays(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def add() -> None:
        now = open_bundle(built.root)
        write_bundle(now.root, now.manifest, {"engines/another/engine.json": b"{}"})

    _, _, made_ = build_here(built, monkeypatch, 0.0, "fp32", meanwhile=add)
    assert not isinstance(made_, BundleError)
    now = open_bundle(built.root)
    assert now.read("engines/another/engine.json") == b"{}" and read_plan(now, made_[1].target) == made_[1]


def test_a_plan_of_a_graph_that_is_another_by_now_is_not_written(
    built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the bundle stays whole: its manifest names the graph that is there."""
    other = built.read(GRAPH) + b"newer"

    def export() -> None:
        write_bundle(built.root, built.manifest, {GRAPH: other})

    _, _, refusal = build_here(built, monkeypatch, 0.0, "fp32", meanwhile=export)
    assert isinstance(refusal, BundleError) and "encoder.onnx was changed while" in str(refusal)
    assert open_bundle(built.root).read(GRAPH) == other


@pytest.mark.parametrize("what", ["the bundle", "the timings", "a pipe"])
def test_what_cannot_be_written_is_said_before_anything_is_compiled(
    built: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    if what == "the bundle":
        (built.root / "engines").touch()
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(OutputError, match=r"cannot be written|it is not a file") as e:
        build_here(
            built,
            monkeypatch,
            0.0,
            meanwhile=lambda: pytest.fail("compiled"),
            timing_cache={"the timings": built.root, "a pipe": pipe}.get(what),
        )
    assert (f"cp -r {built.root} COPY" in e.value.fix) == (what == "the bundle")


def test_a_loss_is_told_with_its_own_reason(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose() -> None:
        raise EngineError("the GPU is lost", why="Xid 79", lost=True)

    def wait(device: FakeCuda) -> None:
        raise EngineError("the GPU is lost", why="waiting for the device", lost=True)

    monkeypatch.setattr(FakeCuda, "close", wait)
    with pytest.raises(EngineError, match="Xid 79"):
        build_here(built, monkeypatch, 0.0, meanwhile=lose)


@pytest.mark.parametrize("without", ["the package", "the parts"])
def test_without_a_graph_for_several_windows_single_ones_are_built(
    built: Bundle, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    if without == "the parts":
        monkeypatch.setattr("builder.together.can_widen", lambda data: False)
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    specs, told, made_ = build_here(built, monkeypatch, 0.0)
    assert not isinstance(made_, BundleError) and made_[1].together == 1
    assert "single windows" in told[-1] and "the package onnx" in told[-1] and str(built.root) in told[-1]
    assert [o.shapes["joints"][0][0] for o in specs] == [1]


@pytest.mark.parametrize(("embedding", "said"), [(2e-7, True), (6e-4, False)])
def test_a_float16_plan_that_is_float32_throughout_is_said_to_be(
    built: Bundle, monkeypatch: pytest.MonkeyPatch, embedding: float, said: bool
) -> None:
    bundle = put(built)
    record = read_plan(bundle, "tensorrt-10.3.0-sm87-fp16").model_copy(update={"parity": {"embedding": embedding}})
    monkeypatch.setattr(made, "build_tensorrt", lambda *given: (bundle, record))
    result = CliRunner().invoke(make_app(), ["build", str(bundle.root), "--target", "tensorrt"])
    assert result.exit_code == 0 and ("float32 throughout" in result.output) == said


def test_the_typed_graph_of_a_plan_is_that_of_the_float16_build(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    data = built.read(GRAPH)
    assert made.typed_graph(data, ISLANDS) == to_half(data)
    with pytest.raises(BundleError, match=r"begins with '/nothing/'") as e:
        made.typed_graph(data, [*ISLANDS, "/nothing/"])
    assert e.value.fix.startswith("use one of: /encoder/scale_in/")
    with pytest.raises(BundleError, match=r"begins with '/encoder/turned/'.*another version of haad-edge") as e:
        made.typed_graph(data.replace(b"/encoder/turned/", b"/encoder/before/"), ISLANDS)
    assert e.value.fix == "haad-edge build BUNDLE --target onnx, then build the plan again"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install onnx"):
        made.typed_graph(data, ISLANDS)


@pytest.mark.parametrize(
    ("here", "said", "fix"),
    [
        (
            replace(ORIN, gpu=None, problem="no NVIDIA driver"),
            "no NVIDIA driver",
            "on the machine that will run the plan",
        ),
        (replace(ORIN, tensorrt=None, problem="TensorRT is not installed"), "not installed", r"haad-edge\[tensorrt\]"),
        (replace(ORIN, pycuda=False, problem="pycuda is not installed"), "pycuda", r"docs/jetson.md"),
    ],
)
def test_a_machine_that_cannot_build_is_told_what_to_install(
    built: Bundle, monkeypatch: pytest.MonkeyPatch, here: Machine, said: str, fix: str
) -> None:
    monkeypatch.setattr(made, "this_machine", lambda: here)
    with pytest.raises(EngineError, match=said) as e:
        build_tensorrt(built, PlanOptions("fp16", SMALL))
    assert __import__("re").search(fix, e.value.fix)
    assert not (built.root / "engines").exists()


@pytest.mark.skipif(not this_machine().problem, reason="here a plan can be built")
def test_the_command_here_is_words_and_exit_code_2(built: Bundle) -> None:
    words = [sys.executable, "-m", "edge.cli", "build", str(built.root), "--target", "tensorrt"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: no plan can be built here" in done.stderr and this_machine().problem in done.stderr
    wrong = (
        ["--batch", "3:2:1"],
        ["--support", "x"],
        ["--precision", "int8"],
        ["--float32", "/a/", "--precision", "fp32"],
    )
    for options in wrong:
        done = subprocess.run([*words, *options], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "Traceback" not in done.stderr, options


def test_building_a_plan_needs_neither_torch_nor_the_weights(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (built.root / WEIGHTS).unlink()
    monkeypatch.setattr(made, "this_machine", lambda: replace(ORIN, gpu=None, problem="no NVIDIA driver"))
    e = CliRunner().invoke(make_app(), ["build", str(built.root), "--target", "tensorrt"]).exception
    assert isinstance(e, EngineError) and e.why == "no NVIDIA driver"


def test_inspect_and_verify_say_what_a_plan_is_and_why_it_does_not_run_here(
    built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--batch", "1:16:64", "--workspace", "2048"]
    b = put(built, asked=options)
    target, words = "tensorrt-10.3.0-sm87-fp16", " ".join(options)
    found = {f.name: f for f in inspect(b.root)}
    assert found[f"engine {target}"].verdict == "ok" and b.model in found[f"engine {target}"].detail
    assert "Orin (compute capability 8.7, aarch64), TensorRT 10.3.0" in found[f"engine {target}: built on"].detail
    takes = found[f"engine {target}: takes"].detail
    assert "1:16:64 windows, 1:4:32 categories" in takes and "at once" not in takes
    if this_machine().problem:
        assert found[f"engine {target} here"].verdict == "absent"
        assert found[f"engine {target} here"].detail == this_machine().problem == found["runs on TensorRT"].detail
        assert not found[f"engine {target} here"].fix  # it may fit the machine that will run it
        (checked,) = (f for f in verify(b) if f.name == f"engine {target}")
        assert checked.verdict == "absent" and this_machine().problem in checked.detail
    other = replace(ORIN, gpu=Gpu("L4", "8.9", "12.6"))
    monkeypatch.setattr("builder.inspect.this_machine", lambda: other)
    there = next(f for f in inspect(b.root) if f.name == f"engine {target} here")
    assert there.verdict == "absent" and there.fix.endswith(f"--target tensorrt --precision fp16 {words}")
    monkeypatch.setattr("builder.inspect.this_machine", lambda: ORIN)
    found = {f.name: f for f in inspect(b.root)}
    assert found[f"engine {target} here"].verdict == found["runs on TensorRT"].verdict == "ok"
    assert "faster" not in found[f"engine {target} here"].detail
    small = replace(ORIN, gpu=Gpu("Orin Nano", "8.7", "12.6"))
    monkeypatch.setattr("builder.inspect.this_machine", lambda: small)
    there = next(f for f in inspect(b.root) if f.name == f"engine {target} here")
    assert there.verdict == "ok"
    assert "built for Orin, and a plan built for Orin Nano may be faster: haad-edge" in there.detail
    assert there.detail.endswith(words)
    path = b.root / "engines" / target / "engine.plan"
    path.write_bytes(path.read_bytes() + b"x")
    found = {f.name: f for f in inspect(b.root)}
    assert found[f"engine {target}"].verdict == "broken" and "sha256" in found[f"engine {target}"].detail
    assert found[f"engine {target}"].fix.endswith(words) and found["runs on TensorRT"].verdict == "absent"
    assert [f.verdict for f in verify(b) if f.name == f"engine {target}"] == ["broken"]
    path.write_bytes(path.read_bytes()[:-1])
    found = {f.name: f for f in inspect(put(b, together=8, profile=EIGHTS).root)}
    assert ", 8 windows at once" in found[f"engine {target}: takes"].detail
    wrong = put(b, graph="0" * 64, asked=options)
    for look in (verify(wrong), inspect(wrong.root)):
        found = {f.name: f for f in look}
        assert "another graph" in found[f"engine {target}"].detail
        assert found[f"engine {target}"].fix.endswith(f"--target tensorrt --precision fp16 {words}")
