"""Measures what people would write instead, on the same messages in the same run: `python -m benchmarks.peers`.

    simulated cameras ── PUSH, flat out ──► peer ──► distances of windows

The programs are in `benchmarks.programs`. Each, and haad-edge, gets two figures: windows per second end to end; and
person-frames per CPU second of receiving, decoding and cutting windows alone, without a model.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.programs import BATCH, Score, Tally, by_hand, with_bytewax
from edge.bench import front, whole
from edge.bench.generator import sending
from edge.bench.machine import cpu
from edge.bench.site import prepare
from edge.bench.traffic import Load
from edge.bundle import open_bundle
from edge.engine import open_engine
from edge.settings import Settings
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support


def torch_score(root: Path) -> Score:
    """Score with the encoder in torch, eager, on one thread."""
    import torch

    from builder.export import load_graph

    torch.set_num_threads(1)
    bundle = open_bundle()
    graph = load_graph(bundle).eval()
    support = load_support(root / "support", bundle, open_engine(bundle, max_batch=1), FeatureCache(root / "cache"))
    features, mask = torch.from_numpy(support.features), torch.from_numpy(support.mask)

    def score(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            distance = graph(torch.from_numpy(joints), torch.from_numpy(visible), features, mask)[1]
        return np.asarray(distance.numpy())

    return score


def onnx_score(root: Path) -> Score:
    """Score with the graph in ONNX Runtime, with the options of haad-edge's engine."""
    bundle = open_bundle()
    engine = open_engine(bundle, max_batch=BATCH)
    support = load_support(root / "support", bundle, engine, FeatureCache(root / "cache"))
    engine.bind(support.features, support.mask)

    def score(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
        engine.staging.joints[: len(joints)], engine.staging.visible[: len(joints)] = joints, visible
        return engine.run(len(joints))[1].copy()

    return score


PEERS: dict[str, tuple[Callable[..., None], Callable[[Path], Score], int]] = {
    "plain": (by_hand, torch_score, 1),
    "batched": (by_hand, torch_score, BATCH),
    "bytewax": (with_bytewax, onnx_score, BATCH),
}


def installed() -> list[str]:
    """The peers that can run here: bytewax is an extra, and not every Python has a wheel for it."""
    return [name for name in PEERS if name != "bytewax" or importlib.util.find_spec("bytewax")]


def run_peer(name: str, address: str, root: Path, tally: Tally, stride: float, inference: bool, pipe: Any) -> None:
    """Run a peer, in a process of its own; sends its tally's result, or the distances if the tally keeps them."""
    serve, model, batch = PEERS[name]
    serve(address, tally, stride, model(root) if inference else None, batch)
    pipe.send(tally.found if tally.keep else tally.result)


def peer(name: str, root: Path, load: Load, stride: float, seconds: float, *, inference: bool) -> dict[str, float]:
    """Run one round of one peer."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    address = f"ipc://{root}/{name}{time.monotonic_ns():x}"
    given = (name, address, root, Tally(seconds), stride, inference, theirs)
    child = spawn.Process(target=run_peer, args=given, daemon=True)
    child.start()
    theirs.close()
    with sending(load, f"push+connect:{address}", paced=False) as poses:
        poses.started()
        result: dict[str, float] = mine.recv()
    child.join(10)
    return result


def compare(load: Load, *, stride: float = 0.25, seconds: float = 4.0, rounds: int = 3) -> dict[str, dict[str, float]]:
    """Measure haad-edge and its peers in turns: windows per second end to end, and person-frames per CPU second.

    The latter is without a model: for each of them it ends when a due window is in an array of its own, as the model
    would take it.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("haad-edge", *installed())}
    with tempfile.TemporaryDirectory(prefix="haad-bench-") as d:
        root = Path(d)
        prepare(root)
        settings = Settings(stride=stride, metrics="off", max_batch=BATCH)
        for _ in range(rounds):
            options = ["--stride", str(stride), "--max-batch", str(BATCH)]
            windows = whole.flat_out(root, load, seconds, options)["windows_s"]
            rate = front.front(root, load, settings, seconds)["cpu_person_frames_s"]
            found["haad-edge"].append({"windows_s": windows, "front_person_frames_s": rate})
            for name in installed():
                windows = peer(name, root, load, stride, seconds, inference=True)["windows_s"]
                rate = peer(name, root, load, stride, seconds, inference=False)["cpu_person_frames_s"]
                found[name].append({"windows_s": windows, "front_person_frames_s": rate})
    return {name: {k: median(r[k] for r in rows) for k in rows[0]} for name, rows in found.items()}


def main() -> None:
    """Measure, and print a line for each program."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = compare(Load(cameras=options.cameras, passers=0.0), seconds=options.seconds, rounds=options.rounds)
    print(cpu())
    ours = found["haad-edge"]
    for name, row in found.items():
        ratios = ", ".join(f"{k} {v:,.0f} (haad-edge ×{ours[k] / v:.1f})" for k, v in row.items())
        print(f"{name:10} {ratios}")
    if options.json:
        options.json.write_text(json.dumps({"machine": cpu(), "peers": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
