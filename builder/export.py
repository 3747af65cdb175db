"""Exports encoder and match as one ONNX graph, and checks it against torch before it enters the bundle."""

from __future__ import annotations

import io
import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from builder.examples import example_windows
from builder.operations import OPSET, check_export
from builder.slim import slim
from builder.tidy import tidy
from edge.bundle import GRAPH, WEIGHTS, Bundle, add_to_bundle
from edge.errors import BundleError
from edge.skeleton import Float, J
from trainer.encoder import Encoder, EncoderConfig, Graph

TOLERANCE = 1e-4


def load_graph(bundle: Bundle) -> Graph:
    """The torch graph of a bundle, in evaluation mode. Raises BundleError if the weights do not fit."""
    known = {f.name for f in fields(EncoderConfig)}
    config = EncoderConfig(**{k: v for k, v in bundle.manifest.architecture.items() if k in known})  # type: ignore[arg-type]
    graph = Graph(Encoder(config))
    try:
        graph.load_state_dict(load_tensors(bundle.read(WEIGHTS)))
    except (RuntimeError, ValueError, SafetensorError) as e:
        raise BundleError(
            f"{bundle.root}: the weights do not fit the architecture in the manifest", why=str(e)[:300]
        ) from None
    return graph.eval()


def export(graph: Graph) -> bytes:
    """The ONNX file's bytes, with dynamic batch, categories and shots. Raises BundleError if `check_export` does."""
    c = graph.encoder.config
    example = (
        torch.zeros(2, c.frames, J, 3),
        torch.ones(2, c.frames, J),
        torch.zeros(3, 8, c.embedding),
        torch.ones(3, 8),
    )
    small = slim(graph)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            small,
            example,
            buffer,  # type: ignore[arg-type]  # the stubs forget file objects
            input_names=["joints", "visible", "support", "support_mask"],
            output_names=["embedding", "distance"],
            dynamic_axes={
                "joints": {0: "batch"},
                "visible": {0: "batch"},
                "support": {0: "categories", 1: "shots"},
                "support_mask": {0: "categories", 1: "shots"},
                "embedding": {0: "batch"},
                "distance": {0: "batch", 1: "categories"},
            },
            opset_version=OPSET,
            # The newer exporter writes opset 18 whatever is requested, and TensorRT 8 misreads its reductions.
            dynamo=False,
        )
    data = tidy(buffer.getvalue())
    check_export(data)
    return data


def parity(graph: Graph, data: bytes, windows: tuple[Float, Float]) -> dict[str, Any]:
    """The greatest differences between torch and ONNX Runtime, with categories of 16, 5 and 1 support windows."""
    rng = np.random.default_rng(1)
    joints, visible = windows
    support = rng.standard_normal((3, 16, graph.encoder.config.embedding)).astype(np.float32)
    support /= np.linalg.norm(support, axis=-1, keepdims=True)
    mask = (np.arange(16) < np.array([[16], [5], [1]])).astype(np.float32)
    with torch.no_grad():
        expected = [x.numpy() for x in graph(*map(torch.from_numpy, (joints, visible, support, mask)))]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # as the engine does
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feed = {"joints": joints, "visible": visible, "support": support, "support_mask": mask}
    found = session.run(["embedding", "distance"], feed)
    worst = {n: float(np.abs(a - b).max()) for n, a, b in zip(("embedding", "distance"), expected, found, strict=True)}
    return {
        "against": f"torch {torch.__version__}",
        "runtime": f"onnxruntime {ort.__version__}",
        "windows": len(joints),
        **worst,
    }


def build_onnx(bundle: Bundle) -> Bundle:
    """Export, check, and write encoder.onnx with its parity into the bundle. Raises BundleError beyond TOLERANCE."""
    graph = load_graph(bundle)
    data = export(graph)
    m = bundle.manifest
    found = parity(graph, data, example_windows(m.frames, m.seconds))
    if not (found["embedding"] <= TOLERANCE and found["distance"] <= TOLERANCE):  # so that NaN fails too
        raise BundleError(
            f"{bundle.root}: the exported graph does not compute what torch computes",
            why=f"they differ by {found['embedding']:.2g} (embedding) and {found['distance']:.2g} (distance)",
            fix="report it with the versions of torch and onnxruntime; the bundle was not changed",
        )
    return add_to_bundle(bundle, {GRAPH: data}, made_of=WEIGHTS, opset=OPSET, parity=found)
