"""Windows a second and latency on the GPU here: `python -m benchmarks.gpu [--bundle DIR]`.

A TensorRT FP16 plan with and without CUDA graphs, one batch after the other and two under way at a time; torch eager
and torch.compile beside it, in a process of their own (`--torch COMMAND` where another Python has torch). All in one
run, in turns, copies in and out included. Before that the floor: what the bytes and operations of a batch take at the
speeds measured on the same machine. What was measured so far is written after every size.
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
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_floor import ceilings, timed
from benchmarks.gpu_torch import COMPILED, EAGER, Torch, support, windows
from edge.bundle import BASE, GRAPH, Bundle, open_bundle
from edge.console import say
from edge.engine.machine import this_machine
from edge.engine.pipeline import Pipeline
from edge.engine.record import FOLDER, PlanRecord
from edge.errors import HaadError

ROOT = Path(__file__).parents[1]
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One way at one size: windows a second, and milliseconds from the staging buffer to the distances."""

    way: str
    batch: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was asked for."""

    batches: list[int]
    compiled: list[int]
    seconds: float
    rounds: int
    torch: str


def plan_of(bundle: Bundle, most: int) -> tuple[Bundle, PlanRecord]:
    """A plan that takes batches of `most`, built in a copy of the bundle."""
    from builder.compile import Wish, build_tensorrt
    from builder.profile import parse_profile

    return build_tensorrt(bundle, Wish("fp16", parse_profile(f"1:{min(64, most)}:{most}")))


def one_after_the_other(pipeline: Pipeline, n: int, seconds: float) -> tuple[float, list[float]]:
    """Windows a second, and milliseconds of each batch."""

    def step() -> None:
        pipeline.submit(n)
        pipeline.collect()

    ms = timed(step, seconds)
    return 1000 * n / statistics.mean(ms), ms


def two_under_way(pipeline: Pipeline, n: int, seconds: float) -> tuple[float, list[float]]:
    """The same, with the next batch submitted before the one before is collected: each waits for its turn."""
    since: deque[float] = deque()
    ms: list[float] = []

    def step() -> None:
        since.append(time.perf_counter())
        pipeline.submit(n)
        if pipeline.full:
            pipeline.collect()
            ms.append(1000 * (time.perf_counter() - since.popleft()))

    between = timed(step, seconds)
    while pipeline.pending:
        pipeline.collect()
    return 1000 * n / statistics.mean(between), ms


def by_torch(torch: Torch, way: str, n: int, seconds: float) -> tuple[float, list[float]]:
    """The same by torch; nothing where it failed."""
    ms = torch.ms(way, n, seconds)
    return (1000 * n / statistics.mean(ms) if ms else 0.0), ms


def ways(engines: dict[str, Pipeline], torch: Torch, n: int, o: Options) -> dict[str, Callable[[], Any]]:
    """How a batch of n can be run: each gives windows a second and the milliseconds of its batches."""
    out: dict[str, Callable[[], Any]] = {}
    for name, engine in engines.items():
        joints, visible = windows(n, engine.staging.joints.shape[1])
        for _ in range(engine.depth):
            engine.staging.joints[:n], engine.staging.visible[:n] = joints, visible
            engine.submit(n)
            engine.collect()
        out[name] = partial(one_after_the_other, engine, n, o.seconds)
        out[f"{name}, two under way"] = partial(two_under_way, engine, n, o.seconds)
    for name in (*EAGER, *([COMPILED] if n in o.compiled else [])):
        out[name] = partial(by_torch, torch, name, n, o.seconds)
    return out


def measure(bundle: Bundle, o: Options, write: Write) -> None:
    """Every way at every size, in turns, the median round of each."""
    here = this_machine()
    assert here.gpu
    report: dict[str, Any] = {
        "gpu": here.gpu.name,
        "compute_capability": here.gpu.capability,
        "driver": here.gpu.driver,
        "tensorrt": here.tensorrt,
        "machine": platform.machine(),
        "date": date.today().isoformat(),
        "model": bundle.model,
        "rows": [],
        "left_out": {},
    }
    bound = None
    try:
        bound = ceilings(bundle.read(GRAPH), o.seconds)
        report["ceilings"] = asdict(bound)
    except (HaadError, ImportError) as e:
        report["left_out"]["floor"] = str(e)
    built, record = plan_of(bundle, max(o.batches))
    report |= {"gate": record.gate.model_dump(), "build_seconds": record.build_seconds}
    write(report)
    plan = built.read(f"{FOLDER}/{record.target}/{record.file}")
    from edge.engine.tensorrt import open_plan

    engines = {
        name: open_plan(built, record, plan, max_batch=max(o.batches), graphs=graphs)
        for name, graphs in {"TensorRT, graphs": True, "TensorRT, no graphs": False}.items()
    }
    with Torch(built.root, o.torch) as torch:
        report["torch"] = torch.version
        for engine in engines.values():
            engine.bind(*support(built.manifest.embedding))
        runs = [r for bank in engines["TensorRT, graphs"]._banks for r in bank.runs.values()]
        report["graphs"] = {"tried": sum(r.captured for r in runs), "captured": sum(r.graph is not None for r in runs)}
        for n in o.batches:
            steps = ways(engines, torch, n, o)
            found = [[step() for step in steps.values()] for _ in range(o.rounds)]
            for name, rounds in zip(steps, zip(*found, strict=True), strict=True):
                rate, ms = sorted(rounds, key=lambda r: r[0])[len(rounds) // 2]
                if ms:
                    row = Row(name, n, rate, *(float(np.percentile(ms, q)) for q in (50, 99)))
                    report["rows"].append(asdict(row))
                    say(f"{name:36} batch {n:5}: {rate:12,.0f} windows/s, p50 {row.p50:8.3f} ms, p99 {row.p99:8.3f} ms")
            if bound is not None:
                floor = bound.floor(n, built.manifest.frames)
                report.setdefault("floor", []).append(floor)
                say(
                    f"{'floor':36} batch {n:5}: {floor['rate']:12,.0f} windows/s at most, {floor['ms']:.3f} ms at least"
                )
            report["left_out"] |= torch.failed
            write(report)
    for engine in engines.values():
        engine.close()
    for name, why in report["left_out"].items():
        say(f"{name}: not measured, {why}")


def main() -> None:
    """Measure all, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BASE)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--compiled", type=int, nargs="*", help="sizes for torch.compile (default: all)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", default="", metavar="COMMAND", help="the Python that has torch, if another")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args()
    here = this_machine()
    if here.problem or here.gpu is None:
        say(f"benchmarks.gpu: nothing measured: {here.problem}")
        sys.exit(77)
    batches = sorted(set(given.batches))
    compiled = batches if given.compiled is None else given.compiled
    path = given.out / f"gpu-{'-'.join(here.gpu.name.lower().split())}-{date.today().isoformat()}.json"

    def write(report: dict[str, Any]) -> None:
        path.write_text(json.dumps(report, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(shutil.copytree(open_bundle(given.bundle).root, Path(folder) / "bundle"))
        measure(bundle, Options(batches, compiled, given.seconds, given.rounds, given.torch), write)
    say(str(path))


if __name__ == "__main__":
    main()
