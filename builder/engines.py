"""Builds the float16 graph, engines/onnx-fp16/ in a bundle, and writes it only if it passes the gate."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import onnx
import onnxruntime as ort

from builder.examples import gate_examples
from builder.export import build_onnx
from builder.gate import AUROC, COSINE, DISTANCE, accept
from builder.half import parts
from builder.islands import ISLANDS
from builder.operations import OPSET, TENSORRT, TYPED, check_graph, objections
from edge.bundle import GRAPH, Bundle, add_to_bundle
from edge.engine.record import FOLDER, RECORD, EngineRecord, Gate
from edge.errors import BundleError
from edge.skeleton import J

HALF = "onnx-fp16"
BATCHES, RUNS = (1, 16, 64), 5


def build_half(bundle: Bundle, float32: Sequence[str] = ()) -> tuple[Bundle, EngineRecord]:
    """Build encoder.onnx, then its float16 form as engines/onnx-fp16/, with the parts in `float32` kept float32 too.

    Raises BundleError for a part that the graph does not have, and for a float16 graph that fails the gate. The float32
    graph, which has passed its own check, is written even then.
    """
    start = time.perf_counter()
    bundle = build_onnx(bundle)
    m, data = bundle.manifest, bundle.read(GRAPH)
    model = onnx.load_from_string(data)
    if unknown := [p for p in float32 if not p or not any(n.name.startswith(p) for n in model.graph.node)]:
        raise BundleError(
            f"no operation of the graph has a name that begins with {unknown[0]!r}",
            fix=f"use one of: {' '.join(parts(model, ISLANDS))}",
        )
    if not parts(model, [*ISLANDS, *float32]):
        raise BundleError("nothing is left to be float16", why=f"--float32 {' '.join(float32)} covers the whole graph")
    islands = list(dict.fromkeys((*ISLANDS, *float32)))
    typed, verdict = accept(data, gate_examples(m.frames, m.seconds), islands)
    built = onnx.load_from_string(typed)
    check_graph(built, TYPED)
    record = EngineRecord(
        target=HALF,
        precision="fp16",
        file="engine.onnx",
        sha256=hashlib.sha256(typed).hexdigest(),
        graph=m.files[GRAPH],
        model=bundle.model,
        opset=OPSET,
        islands=islands,
        asked=[word for part in float32 for word in ("--float32", part)],
        inputs=_shapes(built.graph.input),
        outputs=_shapes(built.graph.output),
        reads=[p.version for p in TENSORRT if not objections(built, p)],
        gate=Gate(**asdict(verdict), limits={"cosine": COSINE, "distance": DISTANCE, "auroc": AUROC}),
        runtime=f"onnxruntime {ort.__version__}",
        machine=platform.machine(),
        build_seconds=round(time.perf_counter() - start, 2),
        latency_ms=_latency(typed, m.frames, m.embedding),
    )
    root = f"{FOLDER}/{HALF}"
    text = record.model_dump_json(indent=2) + "\n"
    files = {f"{root}/{record.file}": typed, f"{root}/{RECORD}": text.encode()}
    return add_to_bundle(bundle, files, made_of=GRAPH), record


def _shapes(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def _latency(data: bytes, frames: int, embedding: int) -> dict[str, float]:
    """Median ms by batch size, over RUNS batches on one thread, against 4 categories of 16 windows."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    bound = {"support": np.ones((4, 16, embedding), np.float32), "support_mask": np.ones((4, 16), np.float32)}
    out = {}
    for n in BATCHES:
        joints = np.random.default_rng(n).random((n, frames, J, 3), np.float32)
        feed = {"joints": joints, "visible": np.ones(joints.shape[:3], np.float32), **bound}
        times = []
        for _ in range(RUNS + 1):
            t = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - t)
        out[str(n)] = round(1000 * float(np.median(times[1:])), 3)
    return out
