"""Rewrites a graph to compute several windows at once, so that its products fill a GPU's tiles.

    mix (15, 15) · x (B, 15, F)  ─►  8 copies of mix on a diagonal, (120, 120) · x (B/8, 120, F)

A product over 15 joints fills a fraction of the smallest tile that a GPU's matrix units work on, and each window needs
one; eight windows in a row fill a tile. The zeros between the blocks are multiplied too, which costs less than the
tiles that were mostly empty: benchmarks/results has the gain. No window affects another's numbers, as long as all are
finite (tests/builder/test_together.py shows how far below float16's maximum the shipped model stays).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

Array = NDArray[np.generic]


def can_widen(data: bytes) -> bool:
    """Whether the graph has the parts that `widened` lays out anew; exports of earlier versions lack them."""
    places = {_place(node) for node in onnx.load_from_string(data).graph.node}
    return places >= {"mix", "mean", "norm", "scale_in", "join"}


def widened(data: bytes, windows: int) -> bytes:
    """The graph, from `builder.export`, rewritten for batches whose size is a multiple of `windows`."""
    model = onnx.load_from_string(data)
    held = {t.name: t for t in model.graph.initializer}
    held |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute}
    done: set[str] = set()
    for node in model.graph.node:
        if (lay := _layout(node)) is None:
            continue
        for name in node.input:
            if name in held and name not in done:
                value = numpy_helper.to_array(held[name])
                held[name].CopyFrom(numpy_helper.from_array(lay(value, windows), name))
                done.add(name)
    onnx.checker.check_model(model, full_check=True)
    out: bytes = model.SerializeToString()
    return out


def _place(node: NodeProto) -> str:
    """The innermost module that a node belongs to: 'mix' for '/encoder/blocks.0/first/mix/MatMul'."""
    return str(node.name).rpartition("/")[0].rpartition("/")[2]


def _layout(node: NodeProto) -> Callable[[Array, int], Array] | None:
    """How to lay a node's constants out for several windows, by its module in `builder.slim`; None: leave them."""
    place = _place(node)
    if place in ("mix", "mean"):
        return _block_diagonal
    if place in ("norm", "scale_in"):
        return _repeated
    return _grouped if place == "join" and node.op_type == "Reshape" else None


def _block_diagonal(mix: Array, windows: int) -> Array:
    return np.kron(np.eye(windows, dtype=mix.dtype), mix)


def _repeated(scale: Array, windows: int) -> Array:
    return np.tile(scale, (1, windows, 1))


def _grouped(shape: Array, windows: int) -> Array:
    """The target shape (−1, joints, features) of a reshape, for windows in a row."""
    return shape * np.array([1, windows, 1], shape.dtype)
