"""Windows a second and latency on the GPU here: `python -m benchmarks.gpu [--bundle DIR]`.

A TensorRT FP16 plan with and without CUDA graphs, one batch after the other and two under way at a time; torch eager
and torch.compile in float16 beside it, where torch sees the GPU. All in one run, in turns, copies in and out included;
then the floor: what the bytes and operations of a batch would take at the speeds measured on the same machine.
Without a GPU, TensorRT or pycuda it says so and ends with 77.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import BASE, GRAPH, Bundle, open_bundle
from edge.console import say
from edge.engine.machine import this_machine
from edge.engine.pipeline import Pipeline
from edge.engine.record import FOLDER, PlanRecord
from edge.skeleton import Float, J

ROOT = Path(__file__).parents[1]
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CATEGORIES, SHOTS = 4, 16
SQUARE = 4096
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One way at one size: windows a second, and milliseconds from the staging buffer to the distances."""

    way: str
    batch: int
    rate: float
    p50: float
    p99: float


def timed(step: Step, seconds: float, least: int = 50) -> list[float]:
    """Milliseconds of each call, over so many seconds and at least so many calls."""
    step()
    out: list[float] = []
    until = time.perf_counter() + seconds
    while len(out) < least or time.perf_counter() < until:
        t = time.perf_counter()
        step()
        out.append(1000 * (time.perf_counter() - t))
    return out


def windows(n: int, frames: int) -> tuple[Float, Float]:
    """Moving joints, a tenth of them hidden."""
    rng = np.random.default_rng(n)
    joints = rng.normal(0, 0.5, (n, frames, J, 3)).astype(np.float32)
    return joints, (rng.random((n, frames, J)) > 0.1).astype(np.float32)


def support(embedding: int) -> tuple[Float, Float]:
    """Unit rows."""
    rows = np.random.default_rng(0).normal(size=(CATEGORIES, SHOTS, embedding)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.ones((CATEGORIES, SHOTS), np.float32)


# ---- the floor ------------------------------------------------------------------------------------------------------


def multiply_adds(graph: bytes) -> int:
    """Multiply-adds of one window through the graph, its products alone, against CATEGORIES × SHOTS rows."""
    import onnx

    model = onnx.load_from_string(graph)
    sizes = {"batch": 1, "categories": CATEGORIES, "shots": SHOTS}
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = sizes[axis.dim_param]
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.input, *inferred.value_info, *inferred.output)
    } | {t.name: list(t.dims) for t in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type == "MatMul":
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            turned = any(a.name == "transA" and a.i for a in node.attribute)
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][0 if turned else 1]
    return total


def copy_speed(seconds: float) -> tuple[float, float]:
    """Bytes a second from pinned memory to the device, and back, in pieces of 64 MiB."""
    from edge.engine.cuda import CudaDevice

    device = CudaDevice()
    try:
        host, memory = device.pinned((16 << 20,)), device.allocate(64 << 20)
        stream, event = device.stream(), device.event()

        def speed(copy: Step) -> float:
            def step() -> None:
                copy()
                device.record(event, stream)
                device.synchronize(event)

            return host.nbytes / statistics.median(timed(step, seconds)) * 1000

        into = speed(lambda: device.copy_in(memory, host, stream))
        return into, speed(lambda: device.copy_out(host, memory, stream))
    finally:
        device.close()


def product_speed(seconds: float) -> float:
    """Float16 multiply-adds a second: a product of two large squares, compiled by the same TensorRT."""
    import tensorrt as trt

    from edge.engine.cuda import CudaDevice
    from edge.engine.tensorrt import make_log

    device, log = CudaDevice(), make_log()
    try:
        builder, flags = trt.Builder(log), 0
        for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
            flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
            flags |= 0 if flag is None else 1 << int(flag)
        network = builder.create_network(flags)
        a, b = (network.add_input(n, trt.float16, (SQUARE, SQUARE)) for n in "ab")
        layer = network.add_matrix_multiply(a, trt.MatrixOperation.NONE, b, trt.MatrixOperation.NONE)
        c = layer.get_output(0)
        c.name = "c"
        network.mark_output(c)
        config = builder.create_builder_config()
        half = getattr(trt.BuilderFlag, "FP16", None)
        if half is not None and not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            config.set_flag(half)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise SystemExit(f"no plan for a product: {log.text}")
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(bytes(plan))
        context = engine.create_execution_context()
        stream, event = device.stream(), device.event()
        for name in "abc":
            wide = 4 if engine.get_tensor_dtype(name) == trt.float32 else 2
            context.set_tensor_address(name, device.allocate(wide * SQUARE * SQUARE).address)

        def step() -> None:
            context.execute_async_v3(stream)
            device.record(event, stream)
            device.synchronize(event)

        return SQUARE**3 / statistics.median(timed(step, seconds)) * 1000
    finally:
        device.close()


def floor(batch: int, frames: int, operations: int, into: float, out: float, product: float) -> dict[str, float]:
    """Milliseconds that a batch takes at least, and windows a second at most with copies and products overlapped."""
    copy = 1000 * batch * frames * J * 4 * 4 / into
    back = 1000 * batch * CATEGORIES * 4 / out
    compute = 1000 * batch * operations / product
    return {"batch": batch, "ms": copy + compute + back, "rate": 1000 * batch / max(copy, compute, back)}


# ---- the ways -------------------------------------------------------------------------------------------------------


def plan_of(bundle: Bundle, most: int) -> tuple[Bundle, PlanRecord]:
    """A plan that takes batches of `most`, built in a copy of the bundle."""
    from builder.compile import Wish, build_tensorrt
    from builder.profile import parse_profile

    return build_tensorrt(bundle, Wish("fp16", parse_profile(f"1:64:{most}")))


def tensorrt_steps(pipeline: Pipeline, n: int) -> dict[str, Step]:
    """One after the other; and two under way, of which each call takes the older."""
    joints, visible = windows(n, pipeline.staging.joints.shape[1])

    def fill() -> None:
        pipeline.staging.joints[:n], pipeline.staging.visible[:n] = joints, visible

    def one() -> None:
        pipeline.submit(n)
        pipeline.collect()

    def two() -> None:
        pipeline.submit(n)
        if pipeline.full:
            pipeline.collect()

    for _ in range(pipeline.depth):
        fill()
        one()
    return {"": one, ", two under way": two}


def torch_steps(bundle: Bundle, n: int, compiled: dict[str, Any]) -> dict[str, Step] | str:
    """torch eager and torch.compile under autocast to float16, from pinned memory and back; or why not."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    from builder.export import load_graph

    m = bundle.manifest
    if not compiled:
        compiled["torch eager"] = load_graph(bundle).cuda()
        compiled["torch.compile"] = torch.compile(compiled["torch eager"], dynamic=False)
    rows, mask = (torch.from_numpy(x).cuda() for x in support(m.embedding))
    joints, visible = (torch.from_numpy(x).pin_memory() for x in windows(n, m.frames))

    def step(model: Any) -> Step:
        def run() -> None:
            with torch.no_grad(), torch.autocast("cuda", torch.float16):
                there = (joints.cuda(non_blocking=True), visible.cuda(non_blocking=True))
                model(*there, rows, mask)[1].cpu()

        return run

    return {name: step(model) for name, model in compiled.items()}


def measure(bundle: Bundle, batches: list[int], seconds: float, rounds: int) -> dict[str, Any]:
    """Every way at every size, in turns, the median round of each."""
    here = this_machine()
    assert here.gpu
    built, record = plan_of(bundle, max(batches))
    plan = built.read(f"{FOLDER}/{record.target}/{record.file}")
    from edge.engine.cuda import CudaDevice
    from edge.engine.tensorrt import open_plan

    rows: list[Row] = []
    left_out: dict[str, str] = {}
    compiled: dict[str, Any] = {}
    kinds = {"TensorRT, graphs": True, "TensorRT, no graphs": False}
    engines = {
        name: open_plan(built, record, plan, max_batch=max(batches), graphs=graphs, device=CudaDevice())
        for name, graphs in kinds.items()
    }
    for engine in engines.values():
        engine.bind(*support(built.manifest.embedding))
    for n in batches:
        steps = {f"{k}{w}": s for k, e in engines.items() for w, s in tensorrt_steps(e, n).items()}
        peers = torch_steps(built, n, compiled)
        if isinstance(peers, str):
            left_out["torch eager, torch.compile"] = peers
        else:
            steps |= peers
        found: dict[str, list[list[float]]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                found[name].append(timed(step, seconds))
                for engine in engines.values():
                    while engine.pending:
                        engine.collect()
        for name, runs in found.items():
            middle = sorted(runs, key=lambda r: statistics.mean(r))[len(runs) // 2]
            p50, p99 = (float(np.percentile(middle, q)) for q in (50, 99))
            rows.append(Row(name, n, 1000 * n / statistics.mean(middle), p50, p99))
            say(f"{name:36} batch {n:5}: {rows[-1].rate:12,.0f} windows/s, p50 {p50:8.3f} ms, p99 {p99:8.3f} ms")
    for engine in reversed(engines.values()):
        engine.close()
    operations = multiply_adds(built.read(GRAPH))
    into, out = copy_speed(seconds)
    product = product_speed(seconds)
    return {
        "gpu": here.gpu.name,
        "compute_capability": here.gpu.capability,
        "driver": here.gpu.driver,
        "tensorrt": here.tensorrt,
        "machine": platform.machine(),
        "date": date.today().isoformat(),
        "model": built.model,
        "gate": record.gate.model_dump(),
        "multiply_adds": operations,
        "ceilings": {"bytes_in": into, "bytes_out": out, "multiply_adds": product},
        "rows": [{f: getattr(r, f) for f in Row.__slots__} for r in rows],
        "floor": [floor(n, built.manifest.frames, operations, into, out, product) for n in batches],
        "left_out": left_out,
    }


def main() -> None:
    """Measure all, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BASE)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if problem := this_machine().problem:
        say(f"benchmarks.gpu: nothing measured: {problem}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(shutil.copytree(open_bundle(options.bundle).root, Path(folder) / "bundle"))
        report = measure(bundle, sorted(options.batches), options.seconds, options.rounds)
    for name, why in report["left_out"].items():
        say(f"{name}: not measured, {why}")
    for f in report["floor"]:
        say(f"floor, batch {f['batch']:5}: {f['rate']:12,.0f} windows/s at most, {f['ms']:.3f} ms at least")
    name = "-".join(report["gpu"].lower().split())
    path = options.out / f"gpu-{name}-{report['date']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    say(str(path))


if __name__ == "__main__":
    main()
