"""Measures what a window could reuse from the one before: `python -m benchmarks.incremental`.

Two windows of a person, a stride apart, share seven eighths of their rows. To show what that is worth, the graph of
`base` is cut off after each part that these rows pass through, and timed up to there. Nothing after the first layer
could be shared, since that layer ends in a rectifier. Then the one thing that can be shared is tried: updating each
joint's coefficients by the new rows, compared with computing them from all rows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.utils import Extractor
from scipy.fft import dct

from edge.bench.machine import cpu
from edge.bundle import GRAPH, open_bundle
from edge.skeleton import J

PARTS = {  # each named by the operation that reads its output
    "fill, place, size": "/encoder/dct/MatMul",
    "and the coefficients": "/encoder/Slice",
    "and the heading": "/encoder/join/Transpose",
    "and the first layer": "/encoder/blocks.0/first/linear/MatMul",
    "the embedding": "/match/Transpose",
}
FRAMES, STRIDE = 48, 6


def cost(run: Callable[[], object], rounds: int, times: int = 20) -> float:
    """Measure the median CPU seconds of a call."""
    run()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            run()
        spent.append((time.process_time() - began) / times)
    return statistics.median(spent)


def slid(c: NDArray[np.complex128], old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Update the transform e^(−iπk(n + ½)/T) of windows that lose the rows `old` (B, S, F) and gain `new` at the end.

    c (B, K, F), complex, is the transform of the windows before; its real part is the DCT-II, as an unscaled sum.
    """
    s = old.shape[1]
    k = np.arange(c.shape[1])[:, None]
    n = np.arange(s)
    # T rows later a wave has turned by πk, which is k half turns: old and new rows differ at most by a sign.
    wave = np.exp(-1j * np.pi * k * (n + 0.5) / FRAMES)
    change = np.where(k % 2, -1, 1)[None] * np.einsum("kn,bnf->bkf", wave, new) - np.einsum("kn,bnf->bkf", wave, old)
    moved: NDArray[np.complex128] = (c + change) * np.exp(1j * np.pi * k * s / FRAMES)
    return moved


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    o = parser.parse_args()
    print(cpu())
    bundle = open_bundle(None)
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(bundle.read(GRAPH)))
    reader = {n.name: n for n in model.graph.node}
    rng = np.random.default_rng(0)
    feed = {
        "joints": rng.normal(size=(o.batch, FRAMES, J, 3)).astype(np.float32),
        "visible": np.ones((o.batch, FRAMES, J), np.float32),
    }
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    taken = {}
    for name, node in PARTS.items():
        made = [reader[node].input[0]]
        part = Extractor(model).extract_model(["joints", "visible"], made).SerializeToString()
        session = ort.InferenceSession(part, options, providers=["CPUExecutionProvider"])
        taken[name] = cost(partial(session.run, None, feed), o.rounds)
    whole = taken["the embedding"]
    for name, seconds in taken.items():
        print(f"{name:28s} {1e6 * seconds / o.batch:6.1f} µs a window  {seconds / whole:5.0%}")

    kept = bundle.manifest.architecture["coefficients"]
    rows = rng.normal(size=(o.batch, FRAMES + STRIDE, J * 3))
    basis = np.exp(-1j * np.pi * np.arange(kept)[:, None] * (np.arange(FRAMES) + 0.5) / FRAMES)
    before = np.einsum("kn,bnf->bkf", basis, rows[:, :FRAMES])
    after = slid(before, rows[:, :STRIDE], rows[:, FRAMES:])
    expected = dct(rows[:, STRIDE:], axis=1)[:, :kept] / 2
    assert np.allclose(after.real, expected)
    flat, real = rows[:, STRIDE:].astype(np.float32), basis.real.astype(np.float32)
    everything = cost(lambda: np.matmul(real, flat), o.rounds)
    part = cost(lambda: slid(before, rows[:, :STRIDE], rows[:, FRAMES:]), o.rounds)
    print(f"coefficients from all rows   {1e6 * everything / o.batch:6.1f} µs a window")
    print(f"slid on by {STRIDE} rows           {1e6 * part / o.batch:6.1f} µs a window")


if __name__ == "__main__":
    main()
