"""How fast the stations are, and the whole: `make bench`, or `python -m benchmarks.stream [--seconds N]`.

Every figure is the median of several rounds of one run on one machine; compare figures of the same run only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `haad-edge` does, before numpy is imported

import numpy as np
import zmq

from edge.alerts import ZmqSink
from edge.bundle import open_bundle
from edge.client import PosePublisher
from edge.clip import save_clip
from edge.endpoint import Endpoint
from edge.engine import open_engine
from edge.ingest import ZmqSource
from edge.motion import make_motion
from edge.runtime import Runtime
from edge.settings import Settings
from edge.skeleton import get_layout
from edge.support import FeatureCache, load_support
from edge.windows import SECOND, Windows, WindowSpec
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose

CAMERAS, PEOPLE, FPS, ROUNDS, BATCH = 8, 4, 30, 5, 64


def cpu() -> str:
    """The processor's name and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    except OSError:
        name = platform.processor()
    return f"{name or platform.machine()}, {multiprocessing.cpu_count()} cores"


def rate(work: Callable[[], int]) -> dict[str, float]:
    """Things per second: median, least and most over the rounds."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        n = work()
        found.append(n / (time.perf_counter() - start))
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}


def recording(seconds: float, layout: str = "coco17") -> list[list[bytes]]:
    """Messages of CAMERAS streams of PEOPLE people each, `seconds` long, in order of capture time."""
    order = get_layout(layout)
    motion = make_motion("walk", seconds=seconds, fps=FPS)
    rng = np.random.default_rng(0)
    at = rng.uniform(-0.3, 0.3, (order.size, 3)).astype(np.float32)
    out = []
    for k in range(int(seconds * FPS)):
        root = motion.joints[k, 0]
        joints = np.broadcast_to(root + at, (PEOPLE, order.size, 3)) + rng.normal(0, 0.01, (PEOPLE, order.size, 3))
        for c in range(CAMERAS):
            frame = PoseFrame(f"cam{c}", k, k * SECOND // FPS, order, np.arange(PEOPLE), joints.astype(np.float32))
            out.append([encode_pose(frame)])
    return out


def decode_and_window(messages: list[list[bytes]]) -> int:
    """Decode, map to core15, write into the arena; no engine. Returns person-frames."""
    windows, limits = Windows(WindowSpec.of(48, 2.0, 0.25, 0.5, 2.0), 1024, 256), Limits()
    for parts in messages:
        frame = decode_pose(parts, limits)
        joints, visible, _ = frame.core15()
        stream = windows.stream_named(frame.stream)
        assert stream is not None
        windows.release(windows.advance(stream, frame.t))
        for _ in windows.push(stream, frame.t, frame.ids, joints, visible):
            pass
    return len(messages) * PEOPLE


def end_to_end(messages: list[list[bytes]], root: Path) -> dict[str, object]:
    """A publisher in another process, as fast as the engine takes it (PUSH/PULL): windows/s and frames lost."""
    bundle, settings = open_bundle(), Settings(max_batch=BATCH, metrics="off")
    engine = open_engine(bundle, max_batch=BATCH)
    for k in range(3):
        save_clip(root / "support" / "walk" / f"{k}.npz", make_motion("walk", seconds=4, seed=k))
    support = load_support(root / "support", bundle, engine, FeatureCache(root / "cache"))
    found: list[float] = []
    lost = 0
    for r in range(ROUNDS):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        source = ZmqSource(context, [Endpoint.parse(f"pull+bind:ipc://{root}/in{r}")], 1000)
        sink = ZmqSink(context, [Endpoint.parse(f"pub+bind:ipc://{root}/out{r}")], 1000)
        runtime = Runtime(settings, bundle, engine, support, source, sink)
        camera = multiprocessing.Process(target=push, args=(f"push+connect:ipc://{root}/in{r}", messages))
        camera.start()
        while not runtime.ledger.frames:
            runtime.step(0.1)
        start = time.perf_counter()
        while runtime.ledger.frames < len(messages):
            runtime.step(0.1)
        runtime.flush()
        found.append(runtime.counts.windows / (time.perf_counter() - start))
        lost += runtime.ledger.lost
        camera.join()
        source.close()
        sink.close()
        context.term()
    return {"median": statistics.median(found), "least": min(found), "most": max(found), "frames_lost": lost}


def push(endpoint: str, messages: list[list[bytes]]) -> None:
    """Send ready-made messages."""
    publisher = PosePublisher(endpoint, stream="unused")
    publisher.wait(20)
    for parts in messages:
        publisher._socket.send(parts[0])
    publisher.close()


def main() -> None:
    """Measure, print a table, write benchmarks/results/stream-<machine>-<date>.json when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the recording")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    messages = recording(options.seconds)
    engine = open_engine(open_bundle(), max_batch=BATCH)
    rng = np.random.default_rng(0)
    engine.staging.joints[:] = rng.normal(size=engine.staging.joints.shape)
    engine.staging.visible[:] = 1

    def infer(n: int) -> int:
        for _ in range(max(1, 512 // n)):
            engine.run(n)
        return max(1, 512 // n) * n

    infer(BATCH)
    rows: dict[str, dict[str, object] | dict[str, float]] = {
        "decode + windows, person-frames/s, one core": rate(lambda: decode_and_window(messages)),
        "engine alone, windows/s, batch 1": rate(lambda: infer(1)),
        f"engine alone, windows/s, batch {BATCH}": rate(lambda: infer(BATCH)),
    }
    with tempfile.TemporaryDirectory() as d:
        rows[f"end to end over ZeroMQ, windows/s, batch {BATCH}"] = end_to_end(messages, Path(d))
    load = f"{CAMERAS} cameras x {PEOPLE} people x {FPS} fps x {options.seconds:g} s"
    print(f"{cpu()}; {date.today()}; {engine.name}; {load}")
    for name, row in rows.items():
        rest = {k: v for k, v in row.items() if k != "median"}
        print(f"{name:52} {row['median']:>10,.0f}   " + "  ".join(f"{k} {v:,.0f}" for k, v in rest.items()))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": cpu(), "date": str(date.today()), "engine": engine.name, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
