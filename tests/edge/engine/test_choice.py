"""The setting `engine`, and what a running loop says and does when a device is lost under it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import BASE, GRAPH, open_bundle, write_bundle
from edge.clip import save_clip
from edge.engine import Staging, open_engine
from edge.engine.fallback import Fallback, in_order, open_first
from edge.engine.machine import this_machine
from edge.errors import BundleError, EngineError, SettingsError, SupportError
from edge.motion import make_motion
from edge.notices import Notices
from edge.page import RuntimeCollector
from edge.service import _reloader, serving
from edge.settings import load_settings
from edge.skeleton import Float
from edge.support.cache import FeatureCache
from tests.edge.engine.test_plans import put
from tests.edge.harness import HeightEngine, bench, message, person, support_of


@pytest.mark.parametrize(
    ("text", "engines"),
    [
        ("engine: onnx", ("onnx",)),
        ("engine: [tensorrt, onnx]", ("tensorrt", "onnx")),
        ("engine: 'tensorrt, onnx'", ("tensorrt", "onnx")),
        ("engine:\n- tensorrt", ("tensorrt",)),
        ("engine: auto", ("auto",)),
    ],
)
def test_the_setting_is_a_list_in_a_file_and_has_commas_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, engines: tuple[str, ...]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert load_settings({}, tmp_path / "c.yaml").engines == engines
    assert load_settings({"engine": ",".join(engines)}).engines == engines
    monkeypatch.setenv("HAAD_ENGINE", ",".join(engines))
    assert load_settings().engines == engines


@pytest.mark.parametrize("value", ["tensorflow", "onnx,onnx", "tensorrt,", "auto,onnx", ["onnx", 3], [], "ONNX"])
def test_an_engine_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="setting 'engine' from the command line"):
        load_settings({"engine": value})


def test_by_default_a_plan_that_is_there_is_used(tmp_path: Path) -> None:
    names, bundle = load_settings().engines, open_bundle(shutil.copytree(BASE, tmp_path / "bundle"))
    assert in_order(names, bundle) == ("onnx",)
    assert in_order(names, bundle, build_missing=True) == ("tensorrt", "onnx")
    assert in_order(names, put(bundle)) == ("tensorrt", "onnx")
    assert in_order(("onnx",), put(bundle), build_missing=True) == ("onnx",)


class Gpu(HeightEngine):
    """Computes what HeightEngine does, until its device goes."""

    name = "gpu-1"

    def __init__(self, size: int = 8) -> None:
        super().__init__(size)
        self.gone = False

    def run(self, n: int) -> tuple[Float, Float]:
        if self.gone:
            raise EngineError("the GPU is lost", why="Xid 79", lost=True)
        return super().run(n)

    def close(self) -> None: ...


def frames(stream: str, start: int, n: int, height: float) -> list[bytes]:
    return [message(stream, start + i, (start + i) / 20, {7: person(height)}) for i in range(n)]


def test_a_device_lost_in_the_loop_is_said_counted_and_made_up_for() -> None:
    gpu, cpu = Gpu(), HeightEngine()
    engine = Fallback([gpu, cpu])  # type: ignore[list-item]
    b = bench(engine, stride=0.25)  # type: ignore[arg-type]
    engine.tell = b.runtime.engine_lost
    plain = bench(HeightEngine(), stride=0.25)
    for part in range(4):
        gpu.gone = part == 2
        for x in (b, plain):
            x.play(frames("cam", 40 * part, 40, 0.1 * part))
    assert b.sink.scores() == pytest.approx(plain.sink.scores()) and len(b.sink.scores()) > 10  # none is missing
    assert b.sink.states().count("degraded") == 1 and b.runtime.state == "online"
    assert b.runtime.counts.skipped["engine_failed"] == 0
    assert b.runtime.announcer.by.engine == "height-1" and engine.fallbacks == 1
    (metric,) = (m for m in RuntimeCollector(b.runtime).collect() if m.name == "haad_engine_fallbacks")
    assert metric.samples[0].value == 1
    reasons = [e.reason for e in b.sink.events if getattr(e, "state", "") == "degraded"]
    assert "the GPU is lost: Xid 79" in reasons[0]


def test_without_another_engine_it_is_not_ready_and_says_why() -> None:
    gpu = Gpu()
    b = bench(Fallback([gpu]), stride=0.25)  # type: ignore[list-item,arg-type]
    b.play(frames("cam", 0, 60, 0.1))
    gpu.gone = True
    b.play(frames("cam", 60, 20, 0.1))
    assert b.runtime.state == "degraded" and "Xid 79" in b.runtime.reason
    assert b.runtime.counts.skipped["engine_failed"] > 0


@pytest.fixture
def support(tmp_path: Path) -> Path:
    for name in ("walk", "squat"):
        for k in range(3):
            save_clip(tmp_path / "support" / name / f"{k}.npz", make_motion(name, seconds=3, seed=k))
    return tmp_path / "support"


@pytest.mark.skipif(not this_machine().problem, reason="here the GPU would be used")
def test_run_falls_back_at_the_start_and_says_so_in_one_line(
    support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {
        "support": str(support),
        "engine": "tensorrt,onnx",
        "ingest": f"sub+bind:ipc://{tmp_path}/in",
        "alerts": f"pub+bind:ipc://{tmp_path}/out",
        "metrics": "off",
        "cache": str(tmp_path / "cache"),
    }
    with (tmp_path / "log").open("w") as log:
        with serving(load_settings(given), Notices(log)) as service:
            r = service.runtime
            assert r.engine.name.startswith("onnxruntime-") and r.engine.fallbacks == 1 and r.state == "online"
        with (
            pytest.raises(EngineError, match="cannot run here"),
            serving(load_settings({**given, "engine": "tensorrt"}), Notices(log)),
        ):
            pass
    (line,) = (x for x in (tmp_path / "log").read_text().splitlines() if "tensorrt" in x and "onnxruntime-" in x)
    assert this_machine().problem in line


def test_a_support_folder_that_the_plan_has_no_room_for_is_refused_where_it_is_read(
    support: Path, tmp_path: Path
) -> None:
    class Small:
        staging, categories = Staging.empty(1, 48), 1

        def admit(self, support: Float) -> None:
            if len(support) > 1:
                raise EngineError(f"the support set has {len(support)} categories", why="the plan was built for 1 to 1")

    settings = load_settings({"support": str(support)})
    load = _reloader(open_bundle(), Small(), settings, FeatureCache(tmp_path / "c"))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="2 categories"):
        load()
    for clip in (support / "squat").iterdir():
        clip.unlink()
    (support / "squat").rmdir()
    assert np.isfinite(load().features).all()


def test_a_bundle_that_was_upgraded_under_the_engine_asks_for_a_restart(support: Path, tmp_path: Path) -> None:
    """Not for another copy: what is there is whole, and not what this engine runs."""
    copy = open_bundle(shutil.copytree(BASE, tmp_path / "bundle"))
    load = _reloader(copy, HeightEngine(), load_settings({"support": str(support)}), FeatureCache(tmp_path / "c"))
    write_bundle(copy.root, copy.manifest, {GRAPH: copy.read(GRAPH) + b"newer"})
    with pytest.raises(BundleError, match=r"not the bundle that this engine was started with.*restart the engine"):
        load()


def test_changes_between_categories_are_known_as_far_as_the_plan_has_room(support: Path, tmp_path: Path) -> None:
    class Roomy:
        def __init__(self, categories: int | None) -> None:
            self.categories = categories

        def admit(self, support: Float) -> None:
            assert self.categories is None or len(support) <= self.categories

    settings, cache = load_settings({"support": str(support)}), FeatureCache(tmp_path / "c")
    for room, pairs in ((None, 3), (5, 3), (3, 1), (2, 0)):
        found = _reloader(open_bundle(), Roomy(room), settings, cache)()  # type: ignore[arg-type]
        assert len(found.transitions) == pairs
        assert any(f"room for {room}" in p for p in found.problems) == (pairs < 3)


def test_the_harness_s_support_is_what_the_loop_binds() -> None:
    gpu, cpu = Gpu(), HeightEngine()
    b = bench(Fallback([gpu, cpu]), support_of("a", "b"), stride=0.25)  # type: ignore[list-item,arg-type]
    gpu.gone = True
    b.play(frames("cam", 0, 60, 0.1))
    assert len(cpu.bound) == 1 and len(cpu.bound[0]) == 2


def test_a_device_that_is_lost_when_a_support_is_put_in_place_is_not_ready() -> None:
    """With nobody in view there is no batch that would tell."""
    gpu = Gpu()
    b = bench(Fallback([gpu]), stride=0.25)  # type: ignore[list-item,arg-type]

    def gone(support: Float, mask: Float) -> None:
        raise EngineError("the GPU is lost", why="Xid 79", lost=True)

    gpu.bind = gone  # type: ignore[method-assign]
    b.runtime._take_support(support_of("a", "b"))
    assert b.runtime.state == "degraded" and "Xid 79" in b.runtime.reason


@pytest.mark.parametrize("clips", [True, False])
def test_an_engine_is_closed_whatever_becomes_of_the_start(
    support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: bool
) -> None:
    """One with a GPU above all: its memory and TensorRT go before the context does."""
    closed: list[int] = []
    engine = open_engine(open_bundle(), max_batch=8)
    monkeypatch.setattr(engine, "close", lambda: closed.append(1))

    def first(*given: object, **options: Any) -> Fallback:
        options["say"]("a plan is being built")
        return Fallback([engine])

    monkeypatch.setattr("edge.service.open_first", first)
    (tmp_path / "empty").mkdir()
    given = {
        "support": str(support if clips else tmp_path / "empty"),
        "ingest": f"sub+bind:ipc://{tmp_path}/in",
        "alerts": f"pub+bind:ipc://{tmp_path}/out",
        "metrics": "off",
        "journal": "off",
        "cache": str(tmp_path / "cache"),
        "max_batch": 64 if clips else 8,
    }
    with (tmp_path / "log").open("w") as log:
        raises = contextlib.nullcontext() if clips else pytest.raises(SupportError)
        with raises, serving(load_settings(given), Notices(log)):
            assert not closed
    assert closed == [1]
    told = (tmp_path / "log").read_text()
    assert "a plan is being built" in told and ("batches hold at most 8 windows" in told) == clips


def test_this_machine_without_a_gpu_falls_back_by_the_real_door() -> None:
    told: list[str] = []
    f = open_first(open_bundle(), ["tensorrt", "onnx"], max_batch=4, tell=lambda e, n: told.append(f"{e} [{n}]"))
    if f.fallbacks == 0:
        pytest.skip("this machine runs a plan of the shipped bundle")
    assert f.name.startswith("onnxruntime-") and len(told) == 1 and "\n" not in told[0] and "→" in told[0]
    with pytest.raises(EngineError) as e:
        open_engine(open_bundle(), "tensorrt")
    assert e.value.fix and not e.value.lost
