"""Measures what it costs to know the transitions between normal categories.

`OPENBLAS_NUM_THREADS=1 python -m benchmarks.transitions [--seconds S]`, with one thread, as `haad-edge` itself sets.
Support folders have G categories of three generated clips of S seconds each, all normal together: how long they take to
load the first time and again, and what a window in a batch of 64 costs, without and with the transitions. All is CPU
time; for windows it is the median, in turns in one process, by ONNX Runtime with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from edge.bench.machine import cpu
from edge.bundle import Bundle, open_bundle
from edge.clip import save_clip
from edge.engine import Engine, open_engine
from edge.motion import MOTIONS, make_motion
from edge.settings import Settings
from edge.support.cache import FeatureCache
from edge.support.enrol import SupportSet, load_support
from edge.support.transitions import TransitionPlan

GROWING = (1, 3, 8, 16, 32)
MOST: int = Settings.model_fields["max_transitions"].default
BATCH, ROUNDS = 64, 20


def folder(root: Path, categories: int, seconds: float) -> Path:
    """Write three clips of each category; people differ too, since there are more categories than generated motions."""
    motions = [name for name in MOTIONS if name != "fall"]
    for g in range(categories):
        for k in range(3):
            clip = make_motion(motions[g % len(motions)], seconds=seconds, seed=3 * g + k)
            save_clip(root / f"{g:02}" / f"{k}.npz", clip)
    return root


def loaded(
    root: Path, bundle: Bundle, engine: Engine, cache: Path, transitions: TransitionPlan
) -> tuple[SupportSet, float]:
    """Load the support; returns it, and the CPU seconds it took."""
    began = time.process_time()
    return load_support(root, bundle, engine, FeatureCache(cache), transitions=transitions), time.process_time() - began


def per_window(engine: Engine, sets: list[SupportSet]) -> list[float]:
    """Measure the microseconds per window against each support set."""
    found: list[list[float]] = [[] for _ in sets]
    for _ in range(ROUNDS):
        for support, times in zip(sets, found, strict=True):
            engine.bind(support.features, support.mask)
            engine.run(BATCH)
            began = time.thread_time()
            engine.run(BATCH)
            times.append((time.thread_time() - began) / BATCH * 1e6)
    return [float(np.median(t)) for t in found]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the clips")
    o = parser.parse_args()
    bundle = open_bundle()
    engine = open_engine(bundle, max_batch=BATCH)
    engine.staging.joints[:] = np.random.default_rng(0).normal(size=engine.staging.joints.shape)
    engine.staging.visible[:] = 1
    print(f"{cpu()}, {date.today()}, clips of {o.seconds:g} s, at most {MOST} pairs\n")
    print("| categories | pairs | first start: without, with | again: without, with | a window: without, with |")
    print("|---|---|---|---|---|")
    for g in GROWING:
        with tempfile.TemporaryDirectory() as place:
            root = folder(Path(place) / "support", g, o.seconds)
            sets, times = [], []
            for plan in (TransitionPlan(), TransitionPlan(most=MOST)):
                for _ in range(2):
                    support, took = loaded(root, bundle, engine, Path(place) / f"cache{plan.most}", plan)
                    times.append(took)
                sets.append(support)
            one, two = per_window(engine, sets)
            print(
                f"| {g} | {len(sets[1].transitions)} "
                f"| {times[0]:.2f}, {times[2]:.2f} s | {times[1]:.2f}, {times[3]:.2f} s "
                f"| {one:.0f}, {two:.0f} µs |",
                flush=True,
            )


if __name__ == "__main__":
    main()
