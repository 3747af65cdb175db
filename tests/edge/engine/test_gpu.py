"""On a machine with a GPU, TensorRT and pycuda: `pytest -m gpu`. Skipped everywhere else, for the reason it gives."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import BASE, Bundle, open_bundle
from edge.engine import open_engine, run_all
from edge.engine.machine import this_machine
from edge.engine.pipeline import Pipeline
from edge.engine.record import FOLDER, PlanRecord
from edge.errors import EngineError
from edge.skeleton import Float, J

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(this_machine().problem), reason=this_machine().problem or "-"),
]
MOST = 128


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, PlanRecord]:
    from builder.compile import PlanOptions, build_tensorrt
    from builder.profile import parse_profile

    copy = shutil.copytree(BASE, tmp_path_factory.mktemp("gpu") / "bundle")
    return build_tensorrt(open_bundle(copy), PlanOptions("fp16", parse_profile(f"1:16:{MOST}")))


def opened(built: tuple[Bundle, PlanRecord], graphs: bool = True) -> Pipeline:
    from edge.engine.tensorrt import open_plan

    bundle, record = built
    plan = bundle.read(f"{FOLDER}/{record.target}/{record.file}")
    return open_plan(bundle, record, plan, max_batch=MOST, graphs=graphs)


@pytest.fixture
def engine(built: tuple[Bundle, PlanRecord]) -> Iterator[Pipeline]:
    e = opened(built)
    yield e
    e.close()


def windows(n: int, seed: int) -> tuple[Float, Float]:
    rng = np.random.default_rng([n, seed])
    joints = rng.normal(0, 0.5, (n, open_bundle().manifest.frames, J, 3)).astype(np.float32)
    return joints, (rng.random(joints.shape[:3]) > 0.1).astype(np.float32)


def support(seed: int, g: int = 4, k: int = 16) -> tuple[Float, Float]:
    rows = np.random.default_rng([9, seed]).normal(size=(g, k, open_bundle().manifest.embedding)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.ones((g, k), np.float32)


def fill(e: Pipeline, joints: Float, visible: Float) -> None:
    e.staging.joints[: len(joints)], e.staging.visible[: len(joints)] = joints, visible


def test_the_float16_plan_passes_its_gate(built: tuple[Bundle, PlanRecord]) -> None:
    _, record = built
    assert record.precision == "fp16" and record.gate.windows > 200
    assert record.gate.cosine >= 0.999 and record.gate.distance <= 2e-3 and record.gate.auroc <= 2e-3
    assert record.cuda and record.driver and record.latency_ms.keys() >= {"1", "16", str(MOST)}


@pytest.mark.parametrize("n", [1, 3, 16, 100, MOST])
def test_it_says_what_onnx_runtime_says(engine: Pipeline, n: int) -> None:
    reference = open_engine(open_bundle(), max_batch=MOST)
    for seed in range(3):
        g, k = 1 + seed, 8 * (1 + seed)
        joints, visible = windows(n, seed)
        for e in (engine, reference):
            e.bind(*support(seed, g, k))
        found, exact = (run_all(e, joints, visible) for e in (engine, reference))
        assert (found[0] * exact[0]).sum(1).min() >= 0.999
        np.testing.assert_allclose(found[1], exact[1], atol=2e-3)


def test_graphs_of_all_buckets_stay_right_side_by_side(built: tuple[Bundle, PlanRecord], engine: Pipeline) -> None:
    plain = opened(built, graphs=False)
    rng = np.random.default_rng(0)
    for i in range(600):
        if i % 60 == 0:
            s = support(i // 60, 1 + i // 60 % 4)
            for e in (engine, plain):
                e.bind(*s)
            engine.warm()
        n = int(rng.choice(engine.buckets)) - i % 2
        if n < 1:
            continue
        joints, visible = windows(n, i)
        for e in (engine, plain):
            fill(e, joints, visible)
            e.submit(n)  # from all places in turns
        np.testing.assert_allclose(engine.collect(), plain.collect(), atol=1e-5)
    captured = [r.graph for bank in engine._banks for r in bank.runs.values() if r.captured]
    assert len(captured) == 2 * engine.depth * len(engine.buckets) and None not in captured
    plain.close()


def test_a_hundred_thousand_windows_leak_nothing(engine: Pipeline) -> None:
    from edge.bench.machine import resident

    device = engine._device
    engine.bind(*support(0))
    fill(engine, *windows(MOST, 0))
    engine.run(MOST)

    def go(batches: int) -> tuple[int, int]:
        for _ in range(batches):
            engine.submit(MOST)
            while engine.full:
                engine.collect()
        while engine.pending:
            engine.collect()
        return device.free_memory(), resident()  # type: ignore[attr-defined]

    free, size = go(100)
    after, grown = go(100_000 // MOST)
    assert free - after < 2 << 20 and grown - size < 4 << 20


def test_the_support_is_swapped_under_load(engine: Pipeline) -> None:
    reference = open_engine(open_bundle(), max_batch=MOST)
    sets = [support(s, 1 + s // 4, 8) for s in range(8)]  # each bank has four of one shape, then of another
    joints, visible = windows(64, 1)
    expected = []
    for s in sets:
        reference.bind(*s)
        expected.append(run_all(reference, joints, visible)[1])
    for _ in range(engine.depth):  # every buffer holds the same windows
        fill(engine, joints, visible)
        engine.submit(64)
        engine.collect()
    under: deque[int] = deque()
    for i in range(3000):
        if i % 3 == 0:
            now = i // 3 % len(sets)
            engine.bind(*sets[now])
        engine.submit(64)
        under.append(now)
        while engine.full:
            np.testing.assert_allclose(engine.collect(), expected[under.popleft()], atol=2e-3)
    while engine.pending:
        np.testing.assert_allclose(engine.collect(), expected[under.popleft()], atol=2e-3)


def test_opening_and_closing_gives_everything_back(built: tuple[Bundle, PlanRecord], engine: Pipeline) -> None:
    device = engine._device
    opened(built).close()
    before = device.free_memory()  # type: ignore[attr-defined]
    for _ in range(5):
        opened(built).close()
    assert before - device.free_memory() < 8 << 20  # type: ignore[attr-defined]


def test_a_gpu_without_room_is_said_to_be_full_and_is_used_again(
    built: tuple[Bundle, PlanRecord], engine: Pipeline
) -> None:
    import pycuda.driver as cuda

    opened(built).close()
    before, hogs, size = engine._device.free_memory(), [], 1 << 40  # type: ignore[attr-defined]
    try:
        while size >= 1 << 20:
            try:
                hogs.append(cuda.mem_alloc(size))
            except cuda.MemoryError:
                size //= 2
        with pytest.raises(EngineError, match="memory") as e:
            opened(built)
        assert "nvidia-smi" not in str(e.value)
    finally:
        for hog in hogs:
            hog.free()
    again = opened(built)
    for each in (engine, again):
        each.bind(*support(3))
        fill(each, *windows(5, 1))
    np.testing.assert_allclose(again.run(5)[1], engine.run(5)[1], atol=1e-5)
    again.close()
    assert before - engine._device.free_memory() < 8 << 20  # type: ignore[attr-defined]


def test_a_plan_under_another_s_name_is_refused(built: tuple[Bundle, PlanRecord]) -> None:
    bundle, record = built
    plan = bundle.read(f"{FOLDER}/{record.target}/{record.file}")
    from edge.engine.tensorrt import open_plan

    with pytest.raises(EngineError, match="the plan is named"):
        open_plan(bundle, record.model_copy(update={"graph": "0" * 64}), plan, max_batch=4)
    other = record.profile.model_copy(update={"batch": [1, 2, 3]})
    with pytest.raises(EngineError, match=r"not what engine\.json says"):
        open_plan(bundle, record.model_copy(update={"profile": other}), plan, max_batch=4)


def test_the_machine_is_the_one_the_record_names(built: tuple[Bundle, PlanRecord], tmp_path: Path) -> None:
    from edge.engine.plans import choose, misfit

    bundle, record = built
    here = this_machine()
    assert here.gpu and choose(bundle, here)[0] == record
    elsewhere = replace(here, gpu=replace(here.gpu, capability="1.0"))
    assert "compute capability" in misfit(bundle, record, elsewhere)


LOSE = """
import numpy as np
from edge.bundle import open_bundle
from edge.engine import open_engine
from edge.engine.fallback import Fallback
from tests.edge.engine.gpu_fault import break_gpu
from tests.edge.engine.test_gpu import fill, support, windows

bundle = open_bundle({folder!r})
told = []
first, second, exact = (open_engine(bundle, name, max_batch=32) for name in ("tensorrt", "onnx", "onnx"))
engine = Fallback([first, second], lambda e, name: told.append((e.what, e.why, name)))
for e in (engine, exact):
    e.bind(*support(1))
expected = []
for n in (5, 32):
    for e in (engine, exact):
        fill(e, *windows(n, n))
    engine.submit(n)
    expected.append(exact.run(n)[1])
fill(engine, *windows(9, 9))  # the buffer that is being filled
fill(exact, *windows(9, 9))
expected.append(exact.run(9)[1])
print("error", break_gpu())
assert engine.ready  # `collect` does not wait
np.testing.assert_allclose(engine.collect(), expected[0], atol=2e-3)
engine.submit(9)
for distance in expected[1:]:
    np.testing.assert_allclose(engine.collect(), distance, atol=2e-3)
assert (engine.name, engine.fallbacks, engine.pending, len(told)) == (second.name, 1, 0, 1), told
engine.bind(*support(2))
engine.run(9)
engine.close()
print(*told)
"""


def test_batches_on_a_gpu_that_is_lost_are_computed_by_the_next_engine(built: tuple[Bundle, PlanRecord]) -> None:
    """In a process of its own, which has no GPU from then on."""
    done = subprocess.run(
        [sys.executable, "-c", LOSE.format(folder=str(built[0].root))], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"error [1-9]\d+\n\('the GPU is lost', ", done.stdout) and not done.stderr, done
