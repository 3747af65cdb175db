"""Measures windows per second and latency on this machine's GPU: `python -m benchmarks.gpu [--bundle DIR]`.

A TensorRT FP16 plan with and without CUDA graphs, with one batch in flight and with three; beside it torch eager and
torch.compile, in a process of their own (`--torch COMMAND` if another Python has torch). All in one run, in turns
(torch.compile last), including the copies in and out. Before that the floor: the time that the bytes and operations of
a batch take at the speeds measured on the same machine. The results so far are written after every size. Without a GPU,
TensorRT or pycuda it says so and exits with 77.
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
from builder.profile import BATCH, parse_profile, parse_range
from edge.bundle import BASE, GRAPH, Bundle, open_bundle
from edge.commands.console import fail, say
from edge.engine.machine import this_machine
from edge.engine.pipeline import Pipeline
from edge.engine.record import FOLDER, PlanRecord
from edge.errors import HaadError

ROOT = Path(__file__).parents[1]
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run batches of one size: windows per second, and milliseconds from staging buffer to distances."""

    way: str
    batch: int
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options."""

    batches: list[int]
    compiled: list[int]
    seconds: float
    rounds: int
    torch: str


def open_engines(bundle: Bundle, batch: str) -> tuple[dict[str, Pipeline], PlanRecord]:
    """Build a plan for such batches into the bundle, and open it with and without CUDA graphs."""
    from builder.compile import PlanOptions, build_tensorrt
    from edge.engine.tensorrt import open_plan

    built, record = build_tensorrt(bundle, PlanOptions("fp16", parse_profile(batch)))
    plan = built.read(f"{FOLDER}/{record.target}/{record.file}")
    engines = {
        name: open_plan(built, record, plan, max_batch=record.profile.batch[2], graphs=graphs)
        for name, graphs in {"TensorRT, graphs": True, "TensorRT, no graphs": False}.items()
    }
    for engine in engines.values():
        engine.bind(*support(built.manifest.embedding))
    return engines, record


def profiles(batches: list[int]) -> dict[str, list[int]]:
    """Decide which sizes are measured with which plan (min:usual:max): kernels are chosen for the usual size."""
    most = parse_range(BATCH, "--batch")[2]
    small, large = [n for n in batches if n <= most], [n for n in batches if n > most]
    return ({BATCH: small} if small else {}) | ({f"{large[0]}:{large[-1]}:{large[-1]}": large} if large else {})


def run_sequentially(pipeline: Pipeline, n: int, seconds: float) -> tuple[float, list[float]]:
    """Run one batch after the other; returns windows per second, and the milliseconds of each batch."""

    def step() -> None:
        pipeline.submit(n)
        pipeline.collect()

    ms = timed(step, seconds)
    return 1000 * n / statistics.mean(ms), ms


def run_overlapped(pipeline: Pipeline, n: int, seconds: float) -> tuple[float, list[float]]:
    """The same, but submit as many batches as there is room for before collecting the oldest."""
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
    """The same with torch; no milliseconds if it failed."""
    ms = torch.ms(way, n, seconds)
    return (1000 * n / statistics.mean(ms) if ms else 0.0), ms


def ways(engines: dict[str, Pipeline], torch: Torch, n: int, o: Options) -> dict[str, Callable[[], Any]]:
    """The ways to run a batch of n; each returns windows per second and the milliseconds of its batches."""
    out: dict[str, Callable[[], Any]] = {}
    for name, engine in engines.items():
        joints, visible = windows(n, engine.staging.joints.shape[1])
        for _ in range(engine.depth):
            engine.staging.joints[:n], engine.staging.visible[:n] = joints, visible
            engine.submit(n)
            engine.collect()
        out[name] = partial(run_sequentially, engine, n, o.seconds)
        out[f"{name}, {engine.depth} under way"] = partial(run_overlapped, engine, n, o.seconds)
    for name in EAGER:
        out[name] = partial(by_torch, torch, name, n, o.seconds)
    return out


def rows_of(steps: dict[str, Callable[[], Any]], n: int, rounds: int) -> list[dict[str, Any]]:
    """Measure the ways in turns; returns and prints the median round of each."""
    out = []
    found = [[step() for step in steps.values()] for _ in range(rounds)]
    for name, of_it in zip(steps, zip(*found, strict=True), strict=True):
        rate, ms = sorted(of_it, key=lambda r: r[0])[rounds // 2]
        if ms:
            row = Row(name, n, rate, *(float(np.percentile(ms, q)) for q in (50, 99)))
            out.append(asdict(row))
            print_row(name, n, f"{rate:12,.0f} windows/s, p50 {row.p50:8.3f} ms, p99 {row.p99:8.3f} ms")
    return out


def print_row(name: str, n: int, text: str) -> None:
    say(f"{name:36} batch {n:5}: {text}")


def measure(bundle: Bundle, o: Options, write: Write) -> None:
    """Measure every way at every size, and write the report as it grows."""
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
        "plans": {},
        "rows": [],
        "left_out": {},
    }
    bound = None
    try:
        bound = ceilings(bundle.read(GRAPH), o.seconds)
        report["ceilings"] = asdict(bound)
        write(report)
    except (HaadError, ImportError) as e:
        report["left_out"]["floor"] = str(e)
    with Torch(bundle.root, o.torch) as torch:
        report["torch"] = torch.version
        for batch, sizes in profiles(o.batches).items():
            engines, record = open_engines(bundle, batch)
            runs = [r for bank in engines["TensorRT, graphs"]._banks for r in bank.runs.values()]
            report["plans"][batch] = {
                "gate": record.gate.model_dump(),
                "build_seconds": record.build_seconds,
                "together": record.together,
                "graphs_tried": sum(r.captured for r in runs),
                "graphs_captured": sum(r.graph is not None for r in runs),
            }
            write(report)
            for n in sizes:
                report["rows"] += rows_of(ways(engines, torch, n, o), n, o.rounds)
                if bound is not None:
                    floor = bound.floor(n, bundle.manifest.frames)
                    report.setdefault("floor", []).append(floor)
                    print_row("floor", n, f"{floor['rate']:12,.0f} windows/s at most, {floor['ms']:.3f} ms at least")
                write(report)
            for engine in engines.values():
                engine.close()
        for n in o.compiled:  # last, since each size needs a compilation of its own
            report["rows"] += rows_of({COMPILED: partial(by_torch, torch, COMPILED, n, o.seconds)}, n, o.rounds)
            write(report)
        report["left_out"] |= torch.failed
        write(report)
    for name, why in report["left_out"].items():
        say(f"{name}: not measured, {why}")


def main() -> None:
    """Measure everything, print it, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BASE)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--compiled", type=int, nargs="*", help="sizes for torch.compile (default: all)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", default="", metavar="COMMAND", help="the Python that has torch, if not this one")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args()
    here = this_machine()
    if here.problem or here.gpu is None:
        say(f"benchmarks.gpu: nothing measured: {here.problem}")
        sys.exit(77)
    given.out.mkdir(parents=True, exist_ok=True)
    batches = sorted(set(given.batches))
    compiled = batches if given.compiled is None else given.compiled
    path = given.out / f"gpu-{'-'.join(here.gpu.name.lower().split())}-{date.today().isoformat()}.json"

    def write(report: dict[str, Any]) -> None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(shutil.copytree(open_bundle(given.bundle).root, Path(folder) / "bundle"))
        measure(bundle, Options(batches, compiled, given.seconds, given.rounds, given.torch), write)
    say(str(path))


if __name__ == "__main__":
    try:
        main()
    except HaadError as e:
        fail(e)
