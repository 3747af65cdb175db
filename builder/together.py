"""The graph for several windows at once: products as large as an engine's tiles, of constants laid out anew.

    mix (15, 15) · x (B, 15, F)  ─►  one block of it for each of 8 windows, (120, 120) · x (B/8, 120, F)

A product over 15 joints fills a fraction of the smallest tile that a GPU's matrix units work on, and there is one for
each window; eight windows behind each other fill one. The noughts between the blocks are multiplied too, and cost less
than the tiles that stood empty: benchmarks/results has what it brings. No window has a part in another's numbers, as
long as those are finite (tests/builder/test_together.py shows how far from float16's end the shipped model stays).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

Array = NDArray[np.generic]


def can_widen(data: bytes) -> bool:
    """Whether the graph has the parts that are laid out anew; an export of before has not."""
    places = {_place(node) for node in onnx.load_from_string(data).graph.node}
    return places >= {"mix", "mean", "norm", "scale_in", "join"}


def widened(data: bytes, windows: int) -> bytes:
    """A graph of `builder.export`, for batches of a multiple of `windows`."""
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
    """The innermost module that a node is of: 'mix' of '/encoder/blocks.0/first/mix/MatMul'."""
    return str(node.name).rpartition("/")[0].rpartition("/")[2]


def _layout(node: NodeProto) -> Callable[[Array, int], Array] | None:
    """How a node's constant is laid out for more windows, by the place that `builder.slim` gave it; None: as it is."""
    place = _place(node)
    if place in ("mix", "mean"):
        return _blocks
    if place in ("norm", "scale_in"):
        return _repeated
    return _behind if place == "join" and node.op_type == "Reshape" else None


def _blocks(mix: Array, windows: int) -> Array:
    return np.kron(np.eye(windows, dtype=mix.dtype), mix)


def _repeated(scale: Array, windows: int) -> Array:
    return np.tile(scale, (1, windows, 1))


def _behind(shape: Array, windows: int) -> Array:
    """Of (−1, joints, features)."""
    return shape * np.array([1, windows, 1], shape.dtype)
