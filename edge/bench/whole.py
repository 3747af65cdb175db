"""Measures the whole engine as a process, over real ZeroMQ: at the cameras' pace, flat out, and at its start.

cameras (a process) ── poses ──► haad-edge run (a process) ── scores, alerts, status ──► here
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from edge.bench.generator import sending
from edge.bench.latency import Latencies, bucket_quantile, by_second, summary
from edge.bench.machine import cpu_seconds, resident
from edge.bench.site import site
from edge.bench.traffic import Load
from edge.errors import HaadError
from edge.events import Scores, Status

LOSSES = ("haad_frames_lost_total", "haad_messages_dropped_total", "haad_windows_skipped_total")
SETTLE_S = 3.0
"""How long to wait until every track has filled its first window."""


def _caps(load: Load) -> list[str]:
    """Options with room for all of a load's people, including those who have just left."""
    tracks = max(4096, load.cameras * (load.people + 1) * 3)
    return ["--max-streams", str(max(256, load.cameras)), "--max-tracks", str(tracks)]


def sustained(root: Path, load: Load, seconds: float, options: list[str], *, scores: bool = True) -> dict[str, Any]:
    """Run the load at its own pace for `seconds`: what was lost, how late results came, what it cost.

    With `scores` the bench listens to every window's result, which the engine must then encode; without, to alerts.
    """
    topics = ("alert/", "score/", "status") if scores else ("alert/", "status")
    with site(root, *_caps(load), *options, topics=topics) as engine, sending(load, engine.ingest, paced=True) as poses:
        poses.started()
        latencies, memory, begun = Latencies(), [], time.monotonic()
        while (left := begun + SETTLE_S - time.monotonic()) > 0:
            engine.subscriber.receive(left)
        first, missed = engine.metrics(), engine.subscriber.missed
        cpu, start = cpu_seconds(engine.pid), time.monotonic()
        while (left := start + seconds - time.monotonic()) > 0:
            event = engine.subscriber.receive(left)
            if event is not None:
                latencies.take(event, time.time_ns())
            if isinstance(event, Status):
                memory.append(resident(engine.pid))
        wall, cpu = time.monotonic() - start, cpu_seconds(engine.pid) - cpu
        last = engine.metrics()
        sent = poses.stop()
    grown = {k: v - first.get(k, 0.0) for k, v in last.items()}
    windows = grown["haad_windows_total"]
    lost = {k: v for k, v in grown.items() if v and k.startswith(LOSSES) and "too_few_joints" not in k}
    return {
        "seconds": round(wall, 1),
        "messages_s": grown["haad_frames_total"] / wall,
        "person_frames_s": grown["haad_people_total"] / wall,
        "windows_s": windows / wall,
        "windows_a_batch": windows / max(1.0, grown["haad_batches_total"]),
        "lost": lost,
        "results_missed": engine.subscriber.missed - missed,
        "score": summary(latencies.score),
        "alert": summary(latencies.alert),
        "over_time": by_second(latencies.score, latencies.score_at),
        "arrival_to_score_ms": {
            f"p{q}": None if (s := bucket_quantile(first, last, "haad_latency_seconds", q / 100)) is None else s * 1000
            for q in (50, 99)
        },
        "engine_cpu": cpu / wall,
        "memory_mb": [memory[0] / 1e6, max(memory) / 1e6, memory[-1] / 1e6] if memory else [],
        "cameras": {
            "cpu": sent.cpu / sent.seconds,
            "late_p99_ms": sent.late_p99 * 1e3,
            "late_max_ms": sent.late_max * 1e3,
        },
    }


def flat_out(root: Path, load: Load, seconds: float, options: list[str]) -> dict[str, float]:
    """Run as fast as the engine takes it (PUSH: nothing is lost): rates over `seconds`, once the windows are full."""
    with (
        site(root, *_caps(load), *options, pattern="pull") as engine,
        sending(load, engine.ingest, paced=False) as poses,
    ):
        poses.started()
        first = engine.status()
        while first.windows < 2 * load.cameras * load.people:
            first = engine.status()
        cpu, last = cpu_seconds(engine.pid), first
        while last.seconds - first.seconds < seconds:
            last = engine.status()
        wall, cpu = last.seconds - first.seconds, cpu_seconds(engine.pid) - cpu
        lost, windows = last.frames_lost - first.frames_lost, last.windows - first.windows
        messages = last.frames - first.frames
        poses.stop()
    return {"windows_s": windows / wall, "messages_s": messages / wall, "cpu": cpu / wall, "frames_lost": lost}


def soak(root: Path, load: Load, capture: float, options: list[str], *, looks: int = 60) -> dict[str, Any]:
    """Run `capture` seconds of camera time as fast as the engine takes them: what was lost, and memory over time.

    With PUSH and PULL only the engine could lose anything, and it waits rather than skips. Memory is the process's, at
    `looks` even steps of capture time. The first tenth, in which arrays are first touched, is left out of the summary.
    """
    memory: list[tuple[float, float]] = []
    with (
        site(root, *_caps(load), *options, pattern="pull") as engine,
        sending(load, engine.ingest, paced=False) as poses,
    ):
        poses.started()
        begun = time.monotonic()
        while True:
            status = engine.status()
            done = min(capture, status.frames / load.messages)
            if done >= capture * len(memory) / looks:
                memory.append((round(done, 1), resident(engine.pid) / 1e6))
            if done >= capture:
                break
        wall, last = time.monotonic() - begun, engine.metrics()
        poses.stop()
    warm = [mb for at, mb in memory if at >= capture / 10]
    return {
        "capture_s": capture,
        "wall_s": round(wall, 1),
        "messages": int(last["haad_frames_total"]),
        "person_frames": int(last["haad_people_total"]),
        "windows": int(last["haad_windows_total"]),
        "lost": {k: v for k, v in last.items() if v and k.startswith(LOSSES) and "too_few_joints" not in k},
        "memory_mb": memory,
        "warm_mb": warm[0],
        "most_mb": max(warm),
        "last_mb": warm[-1],
    }


BARE = """
import json, sys, time
import numpy as np
from edge.bundle import open_bundle
from edge.engine import open_engine
from pathlib import Path
from edge.settings import Settings
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.support.transitions import TransitionPlan
root, batch, seconds, name, bundle, threads = json.loads(sys.argv[1])
model = open_bundle(Path(bundle) if bundle else None)
engine = open_engine(model, name, max_batch=batch, threads=threads)
transitions = TransitionPlan(most=Settings.model_fields["max_transitions"].default, room=engine.categories)
cache = FeatureCache(Path(root) / "cache")
support = load_support(Path(root) / "support", model, engine, cache, transitions=transitions)
engine.bind(support.features, support.mask)
engine.staging.joints[:] = np.random.default_rng(0).normal(size=engine.staging.joints.shape)
engine.staging.visible[:] = 1
for _ in range(3): engine.run(batch)
n, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    engine.run(batch)
    n += batch
print(n / (time.perf_counter() - start))
"""


def bare(root: Path, batch: int, seconds: float, engine: str, bundle: Path | None, threads: int) -> float:
    """Windows a second of the engine alone: in a process of its own, full batches, the same support."""
    given = json.dumps([str(root), batch, seconds, engine, str(bundle) if bundle else None, threads])
    done = subprocess.run([sys.executable, "-c", BARE, given], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise HaadError("the engine cannot run by itself", why=done.stderr.strip()[-400:])
    return float(done.stdout)


def ceiling(
    root: Path,
    load: Load,
    options: list[str],
    *,
    engine: str,
    bundle: Path | None,
    batch: int,
    threads: int,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """The highest rate end to end, beside that of the engine alone with the same batch and threads, in turns."""
    ends: list[dict[str, float]] = []
    bares: list[float] = []
    for _ in range(rounds):
        bares.append(bare(root, batch, seconds, engine, bundle, threads))
        ends.append(flat_out(root, load, seconds, [*options, "--max-batch", str(batch)]))
    whole = [e["windows_s"] for e in ends]
    return {
        "batch": batch,
        "bare_windows_s": median(bares),
        "windows_s": median(whole),
        "share_of_bare": median(w / b for w, b in zip(whole, bares, strict=True)),
        "rounds": [{"bare_windows_s": b, **e} for b, e in zip(bares, ends, strict=True)],
    }


def start(root: Path, options: list[str], *, warm: int) -> dict[str, Any]:
    """Seconds from the command to its first status and its first score, with an empty cache and then a filled one.

    The cameras send flat out, so that no time goes into waiting for a window's two seconds to pass. The files are in
    the system's cache both times.
    """
    shutil.rmtree(root / "cache", ignore_errors=True)
    load, found = Load(cameras=4, passers=0), []
    for _ in range(1 + warm):
        with (
            site(root, *options, pattern="pull", topics=("score/", "status")) as engine,
            sending(load, engine.ingest, paced=False),
        ):
            answered: float | None = None
            while True:
                event = engine.subscriber.receive(60)
                now = time.monotonic() - engine.began
                if event is None:
                    raise HaadError(
                        "the engine under test sent no score within 60 s",
                        why=engine.log.read_text(encoding="utf-8", errors="replace")[-400:],
                    )
                answered = now if answered is None else answered
                if isinstance(event, Scores):
                    break
            found.append({"answers": answered, "first_score": now})
    return {"cold": found[0], "warm": {k: median(f[k] for f in found[1:]) for k in found[0]}, "warm_runs": found[1:]}
