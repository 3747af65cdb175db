"""Rewrites a graph to a float16 body with float32 islands, with the precision of each operation in its types.

    joints, visible ──► normalise ─► DCT ─► turn ──Cast─► graph convolutions ──Cast─► unit length ─► match ──► outputs
                       └─────── float32 ────────┘        └──── float16 ────┘        └────── float32 ─────┘

A strongly typed engine (from TensorRT 10 on, with the STRONGLY_TYPED flag) computes each operation in the type that the
graph gives it. ONNX Runtime runs the same file, so it can be judged without a GPU. Islands are prefixes of node names.
The float32 graph has the same names, so where precision is a flag (TensorRT 8), the same list picks its layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from builder.islands import ISLANDS, in_island
from edge.errors import BundleError

# These only move values. They keep the type of what they move, so that nothing is rounded between two islands.
_MOVES = frozenset("Concat Expand Gather Identity Reshape Slice Squeeze Transpose Unsqueeze".split())
_FLOATS: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
_NUMPY: dict[int, type[np.floating]] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
LARGEST = float(np.finfo(np.float16).max)


def part_of(name: str) -> str:
    """The prefix of the part that a node belongs to: the unit in which islands are tried.

    '/encoder/blocks.2/first/linear/MatMul' → '/encoder/blocks.2/'; an operation directly in the encoder, like
    '/encoder/Relu_1' → '/encoder/Relu'. Nodes outside any module (constants) → ''.
    """
    scope = name.split("/")[1:-1]
    if not scope:
        return ""
    if scope == ["encoder"]:
        operation, _, number = name.rpartition("_")
        return operation if number.isdigit() else name
    return "/" + "/".join(scope[:2]) + "/"


def parts(model: onnx.ModelProto, islands: Sequence[str] = ()) -> list[str]:
    """The parts outside `islands` that compute something, in the graph's order."""
    names = (n.name for n in model.graph.node if n.op_type not in _MOVES | {"Constant", "Shape"})
    found = (part_of(n) for n in names if not in_island(n, islands))
    return [p for p in dict.fromkeys(found) if p]


def to_half(data: bytes, islands: Sequence[str] = ISLANDS) -> bytes:
    """Rewrite a float32 graph in float16. Nodes under `islands`, inputs and outputs stay float32.

    Raises BundleError, naming the part, for a constant that float16 cannot hold.
    """
    model = onnx.load_from_string(data)
    rewriter = _Rewriter(model, islands)
    for node in model.graph.node:
        rewriter.take(node)
    rewriter.finish()
    onnx.checker.check_model(model, full_check=True)
    out: bytes = model.SerializeToString()
    return out


def rounded(typed: bytes) -> bytes:
    """Rewrite a typed graph in float32 arithmetic, rounding to float16 each result that is float16 in the typed graph.

    ONNX Runtime has few float16 kernels on a CPU. It runs float32 ones instead and removes the casts that it inserts
    between two of them, so the typed graph's results are nearly those of float32. Casts that are in the graph are kept.
    Within an operation, sums stay in float32, as with numpy and tensor cores.
    """
    model = onnx.load_from_string(typed)
    kinds = types_of(model)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        for a in node.attribute:
            if node.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT16:
                a.i = TensorProto.FLOAT
        nodes.append(node)
        for i, name in enumerate(node.output):
            if kinds.get(name) == TensorProto.FLOAT16 and node.op_type not in _MOVES:
                node.output[i] = f"{name}/exact"
                nodes.append(
                    helper.make_node("Cast", [node.output[i]], [f"{name}/short"], f"{name}/r", to=TensorProto.FLOAT16)
                )
                nodes.append(helper.make_node("Cast", [f"{name}/short"], [name], f"{name}/w", to=TensorProto.FLOAT))
    for field, values in (("node", nodes), ("value_info", [])):
        repeated = getattr(model.graph, field)
        del repeated[:]
        repeated.extend(values)
    out: bytes = model.SerializeToString()
    return out


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor of a graph, by its name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    return found | {t.name: t.data_type for t in inferred.initializer}


class _Rewriter:
    """Types the nodes one after the other, and inserts a Cast where an input has another type."""

    def __init__(self, model: onnx.ModelProto, islands: Sequence[str]) -> None:
        self.graph, self.islands = model.graph, islands
        # The types before the rewrite: only float32 tensors are rewritten.
        self.was = types_of(model)
        self.now = {v.name: v.type.tensor_type.elem_type for v in self.graph.input}
        self.constants: dict[str, NDArray[np.float32]] = {
            t.name: numpy_helper.to_array(t) for t in self.graph.initializer if t.data_type == TensorProto.FLOAT
        }
        self.nodes: list[NodeProto] = []
        self.made: dict[tuple[str, int], str] = {}
        self.initializers: list[TensorProto] = []

    def take(self, node: NodeProto) -> None:
        """Type the next node. Constants become initializers of the type that their user needs."""
        if node.op_type == "Constant" and self.was[node.output[0]] == TensorProto.FLOAT:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if value is None:
                raise BundleError(
                    f"constant '{node.name}' has no tensor", why="haad-edge build did not export this graph"
                )
            self.constants[node.output[0]] = numpy_helper.to_array(value)
            return
        floats = [name for name in node.input if self.was.get(name) == TensorProto.FLOAT]
        makes = [name for name in node.output if self.was.get(name) == TensorProto.FLOAT]
        kind = self._type_of(node, floats)
        if floats and node.op_type != "Shape":  # Shape reads any type
            for i, name in enumerate(node.input):
                if name in floats:
                    node.input[i] = self._as(name, kind, node)
        elif floats:
            node.input[0] = self._any(node.input[0], node)
        if node.op_type == "Cast":
            for a in node.attribute:
                if a.name == "to" and a.i == TensorProto.FLOAT:
                    a.i = kind
        for name in makes:
            self.now[name] = kind
        self.nodes.append(node)

    def finish(self) -> None:
        """Cast the outputs back to float32, and put the new nodes and constants into the graph."""
        for output in self.graph.output:
            if self.now.get(output.name) == TensorProto.FLOAT16:
                half = f"{output.name}/float16"
                for node in self.nodes:
                    for names in (node.input, node.output):
                        for i, name in enumerate(names):
                            if name == output.name:
                                names[i] = half
                self.nodes.append(
                    helper.make_node("Cast", [half], [output.name], f"/{output.name}/out", to=TensorProto.FLOAT)
                )
        whole = [t for t in self.graph.initializer if t.data_type != TensorProto.FLOAT]
        for field, values in (("node", self.nodes), ("initializer", [*whole, *self.initializers]), ("value_info", [])):
            repeated = getattr(self.graph, field)
            del repeated[:]
            repeated.extend(values)

    def _type_of(self, node: NodeProto, floats: list[str]) -> int:
        """float32 in an island or without float inputs; if a node moves, the type of what it moves; else float16."""
        if not floats or in_island(node.name, self.islands):
            return int(TensorProto.FLOAT)
        if node.op_type in _MOVES:
            moved = {self.now[name] for name in floats if name not in self.constants}
            return int(TensorProto.FLOAT16 if moved == {TensorProto.FLOAT16} else TensorProto.FLOAT)
        return int(TensorProto.FLOAT16)

    def _any(self, name: str, node: NodeProto) -> str:
        return self._as(name, TensorProto.FLOAT, node) if name in self.constants else name

    def _as(self, name: str, kind: int, node: NodeProto) -> str:
        """The name of a tensor in this type; adds the Cast or the constant if there is none yet."""
        if name not in self.constants and self.now[name] == kind:
            return name
        if (name, kind) not in self.made:
            new = name if name in self.constants and kind == TensorProto.FLOAT else f"{name}/{_FLOATS[kind]}"
            if name in self.constants:
                value = self.constants[name]
                if kind == TensorProto.FLOAT16 and np.abs(value).max(initial=0) > LARGEST:
                    raise BundleError(
                        f"'{node.name}' has a constant that float16 cannot hold",
                        why=f"'{name}' reaches {np.abs(value).max():.3g}, float16 only to {LARGEST:g}",
                        fix=f"keep '{part_of(node.name)}' in float32",
                    )
                self.initializers.append(numpy_helper.from_array(value.astype(_NUMPY[kind]), new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], f"/{new.strip('/')}", to=kind))
            self.made[name, kind] = new
        return self.made[name, kind]
