"""A plan behind the pipeline's `Program`, with a TensorRT that is made up; `test_gpu.py` has the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.engine.device import Room, Stream
from edge.engine.record import PlanRecord
from edge.engine.tensorrt import TensorrtProgram, lean_library, make_log, name_of, open_plan, room_of
from edge.errors import EngineError, NoPlan

from .fake import FakeDevice
from .test_plans import bundle, record_of  # noqa: F401  (a fixture)


class Context:
    """Takes every shape and address but those in `refused`, and runs if it `runs`."""

    active_optimization_profile = 0
    device_memory = 0

    def __init__(self) -> None:
        self.refused, self.runs = set[str](), True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return name not in self.refused

    def set_tensor_address(self, name: str, address: int) -> bool:
        return name not in self.refused

    def execute_async_v3(self, stream: int) -> bool:
        return self.runs


class Plan:
    """What a plan that is as its record says is deserialised to; a test spoils it."""

    def __init__(self, record: PlanRecord) -> None:
        p = record.profile
        self.name, self.device_memory_size, self.device_memory_size_v2 = name_of(record.graph), 40, 400
        self.shapes, self.kinds, self.inputs = {**record.inputs, **record.outputs}, dict[str, str](), set(record.inputs)
        self.profile = {
            "joints": [[n, *record.inputs["joints"][1:]] for n in p.batch],
            "support": [[g, k, 128] for g, k in zip(p.categories, p.shots, strict=True)],
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self.shapes)

    def get_tensor_name(self, i: int) -> str:
        return list(self.shapes)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return self.kinds.get(name, "float32")

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.shapes[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return self.profile[name]

    def create_execution_context_without_device_memory(self) -> Context:
        return Context()


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The module; `plan` is what it reads."""
    logger = type("ILogger", (), {"INTERNAL_ERROR": 0, "ERROR": 1})
    found = SimpleNamespace(ILogger=logger, __version__="10.3.0", float32="float32", plan=None, asked=[])
    found.TensorIOMode = SimpleNamespace(INPUT="in")
    found.Runtime = lambda log: SimpleNamespace(
        deserialize_cuda_engine=lambda data: found.plan, load_runtime=lambda path: found.asked.append(path)
    )
    monkeypatch.setitem(sys.modules, "tensorrt", found)
    make_log.cache_clear()
    yield found
    make_log.cache_clear()


def opened(trt: SimpleNamespace, record: PlanRecord, device: FakeDevice | None = None) -> TensorrtProgram:
    trt.plan = trt.plan or Plan(record)
    return TensorrtProgram(b"", record, "here", "build it", device or FakeDevice())


def test_what_tensorrt_refuses_is_said_and_a_batch_that_fails_is_a_loss(bundle: Bundle, trt: SimpleNamespace) -> None:  # noqa: F811
    device = FakeDevice()
    program = opened(trt, record_of(bundle), device)
    run = program.new_run(0)
    assert [m.nbytes for m in device.memory.values()] == [400], "the most that any of its contexts asks for"
    assert isinstance(run.context, Context)
    run.point({"joints": (1, 2)}, {"joints": 4096})
    run.enqueue(Stream(0))
    run.context.refused.add("joints")
    for shapes, places, said in (({"joints": (9,)}, {}, "of shape"), ({}, {"joints": 1}, "the address of joints")):
        with pytest.raises(EngineError, match=said) as e:
            run.point(shapes, places)
        assert not e.value.lost
    run.context.runs = False
    with pytest.raises(EngineError, match="GPU is lost") as e:
        run.enqueue(Stream(0))
    assert e.value.lost
    program.close()
    for use in (lambda: program.new_run(0), lambda: run.enqueue(Stream(0))):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_the_runs_of_a_place_compute_in_one_memory_and_those_of_another_elsewhere(
    bundle: Bundle,  # noqa: F811
    trt: SimpleNamespace,
) -> None:
    device = FakeDevice()
    program = opened(trt, record_of(bundle), device)
    assert not device.memory
    contexts = [program.new_run(place).context for place in (0, 1, 0, 2, 1)]
    first, second, third = device.memory
    assert [c.device_memory for c in contexts if c] == [first, second, first, third, second]
    assert len(set(map(id, contexts))) == 5


def test_where_a_profile_belongs_to_one_context_every_place_has_its_one_run(
    bundle: Bundle,  # noqa: F811
    trt: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = FakeDevice()
    program = opened(trt, record_of(bundle), device)
    only = program.new_run(0)
    monkeypatch.setattr(Context, "active_optimization_profile", -1)
    assert all(program.new_run(place) is only for place in (0, 1, 2))
    assert only.context and [only.context.device_memory] == list(device.memory)


def test_the_room_of_a_plan_is_its_profile_and_how_many_windows_go_together(bundle: Bundle) -> None:  # noqa: F811
    record = record_of(bundle)
    p = record.profile
    ranges = [(least, most) for least, _, most in (p.batch, p.categories, p.shots)]
    assert record.together == 1 and room_of(record) == Room(*ranges)
    in_eights = type(p)(batch=[8, 16, 64], categories=record.profile.categories, shots=record.profile.shots)
    assert room_of(record_of(bundle, profile=in_eights, together=8)) == Room((8, 64), *ranges[1:], step=8)


SPOILT: dict[str, tuple[Any, str]] = {
    "name": (lambda p: setattr(p, "name", "haad-other"), "named 'haad-other'"),
    "kind": (lambda p: p.kinds.update(joints="float16"), "joints is not float32"),
    "shape": (lambda p: p.shapes.update(visible=[-1, 7]), r"visible has shape \[-1, 7\]"),
    "direction": (lambda p: p.inputs.discard("support_mask"), "its inputs are"),
    "profile": (lambda p: p.profile["support"].reverse(), "its profile for support"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_plan_that_is_not_as_recorded_is_refused(bundle: Bundle, trt: SimpleNamespace, how: str) -> None:  # noqa: F811
    spoil, said = SPOILT[how]
    trt.plan = Plan(record_of(bundle))
    spoil(trt.plan)
    with pytest.raises(NoPlan, match=said) as e:
        opened(trt, record_of(bundle))
    assert e.value.fix == "build it"


def test_only_a_plan_of_another_version_needs_that_versions_runtime(
    bundle: Bundle,  # noqa: F811
    trt: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = tmp_path / "libnvinfer_lean.so.8"
    library.touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    assert lean_library("8.6.1", "here") == str(library)
    opened(trt, record_of(bundle, version_compatible=True))
    assert trt.asked == []
    with pytest.raises(NoPlan, match="refuses the plan"):  # this one's loader comes to nothing
        opened(trt, record_of(bundle, version_compatible=True, tensorrt="8.6.1"))
    assert trt.asked == [str(library)]


@pytest.mark.parametrize(
    "line",
    [
        "1: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "2: [virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (no further information)",
    ],
)
def test_a_plan_that_has_no_room_on_the_gpu_is_not_built_anew(bundle: Bundle, trt: SimpleNamespace, line: str) -> None:  # noqa: F811
    def refuse(data: bytes) -> None:
        make_log().log(trt.ILogger.ERROR, line)

    trt.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=refuse)
    with pytest.raises(EngineError, match="no room on the GPU") as e:
        opened(trt, record_of(bundle))
    assert not isinstance(e.value, NoPlan) and e.value.why == line


def test_what_is_built_anew_is_built_with_the_options_of_the_plan(
    bundle: Bundle,  # noqa: F811
    trt: SimpleNamespace,
) -> None:
    record = record_of(bundle, asked=["--batch", "1:16:64", "--support", "1:4:32x1:8:64", "--workspace", "9"])
    command = f"haad-edge build {bundle.root} --target tensorrt --precision fp16 --batch 1:16:64"
    with pytest.raises(NoPlan) as e:
        open_plan(bundle, record, b"", max_batch=4, device=FakeDevice())
    assert e.value.fix == f"{command} --support 1:4:32x1:8:64 --workspace 9"
    trt.plan = Plan(record)
    engine = open_plan(bundle, record, b"", max_batch=4, device=FakeDevice())
    with pytest.raises(EngineError, match="33 categories") as e:
        engine.admit(np.zeros((33, 2, 128), np.float32))
    assert e.value.fix == f"{command} --workspace 9 --support 1:8:33x1:64:64"


def test_what_was_said_of_one_failure_is_not_said_of_the_next(bundle: Bundle, trt: SimpleNamespace) -> None:  # noqa: F811
    """TensorRT tells one logger everything, over several lines, and for as long as the process lives."""
    run = opened(trt, record_of(bundle)).new_run(0)
    assert isinstance(run.context, Context)
    run.context.refused.add("joints")
    for said in ("it is too\n long", "it is too wide"):
        make_log().log(1, said)
        make_log().log(2, "a warning")
        with pytest.raises(EngineError) as e:
            run.point({"joints": (9,)}, {})
        assert e.value.why == " ".join(said.split())
    with pytest.raises(EngineError, match="gave no reason"):
        run.point({"joints": (9,)}, {})
    make_log().log(1, "word " * 200)
    assert len(text := make_log().told()) <= 400 and text.endswith("word …")
