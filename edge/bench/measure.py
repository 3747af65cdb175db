"""Runs the sections of `haad-edge bench` one after the other, and collects one report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from edge import __version__
from edge.bench import inside, whole
from edge.bench.machine import cpu
from edge.bench.site import prepare
from edge.bench.traffic import Load
from edge.bundle import open_bundle
from edge.engine import open_engine
from edge.settings import Settings

ROUND_S = 4.0


def measure(
    load: Load,
    *,
    sections: tuple[str, ...],
    seconds: float,
    stride: float,
    max_batch: int,
    engine: str,
    threads: int,
    rounds: int,
    most_tracks: int,
    scores: bool,
    capture: float = 3600.0,
    bundle: Path | None,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """The report: `machine`, `load`, `settings`, and a key per section. Rounds last ROUND_S, or `seconds` if less."""
    options = ["--stride", str(stride), "--engine", engine, "--threads", str(threads)]
    options += ["--bundle", str(bundle)] if bundle else []
    given: dict[str, Any] = {"bundle": bundle, "stride": stride, "max_batch": max_batch, "engine": engine}
    given |= {"threads": threads, "max_streams": max(256, load.cameras)}
    settings = Settings(**given, metrics="off", max_tracks=max(4096, load.cameras * load.people * 3))
    plain, short = replace(load, passers=0.0), min(ROUND_S, seconds)
    counts = [n for n in (10, 100, 1000, 10_000, 100_000) if n <= most_tracks]
    with tempfile.TemporaryDirectory(prefix="haad-bench-") as d:
        root = Path(d)
        prepare(root)
        report: dict[str, Any] = {
            "machine": cpu(),
            "date": str(date.today()),
            "version": __version__,
            "engine": open_engine(open_bundle(bundle), engine, max_batch=1, threads=threads).name,
            "load": asdict(load),
            "settings": {"stride": stride, "max_batch": max_batch, "threads": threads, "scores": scores},
        }
        batch = ["--max-batch", str(max_batch)]
        work: dict[str, Callable[[], dict[str, Any]]] = {
            "start": lambda: whole.start(root, [*options, *batch], warm=rounds),
            "sustained": lambda: whole.sustained(root, load, seconds, [*options, *batch], scores=scores),
            "ceiling": lambda: whole.ceiling(
                root,
                plain,
                options,
                engine=engine,
                bundle=bundle,
                batch=max_batch,
                threads=threads,
                rounds=rounds,
                seconds=short,
            ),
            "stages": lambda: inside.stages(root, plain, settings, short),
            "tracks": lambda: inside.tracks(root, counts, rounds=rounds),
            "soak": lambda: whole.soak(root, load, capture, [*options, *batch]),
        }
        for name in sections:
            progress(f"measuring {name}")
            report[name] = work[name]()
    return report
