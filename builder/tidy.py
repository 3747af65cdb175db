"""Rewrites an exported graph's constants so that each belongs to one operation. The numbers stay the same.

Where precision is a flag (TensorRT 8), float32 islands are held by layer name, and a nameless layer may be float16,
where 1e-12 is 0. A constant's layer is named after its tensor; a constant of lower rank than what it is combined with
also gets a nameless layer in between. So each operation gets its own constant, of full rank and named after it.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

_BROADCAST = frozenset("Add Sub Mul Div Max Min MatMul".split())


def tidy(data: bytes) -> bytes:
    """The same graph without Identity nodes on constants, and with constants of full rank, named after their users."""
    model = onnx.load_from_string(data)
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    axes = {
        v.name: len(v.type.tensor_type.shape.dim) for v in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    constants: dict[str, NDArray[np.generic]] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if value is not None:
                constants[node.output[0]] = numpy_helper.to_array(value)
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
            continue
        elif node.op_type in _BROADCAST:
            _own_constants(node, constants, axes, graph)
        nodes.append(node)
    used = {name for node in nodes for name in node.input} | {v.name for v in graph.output}
    nodes = [n for n in nodes if n.op_type != "Constant" or n.output[0] in used]
    initializers = [t for t in graph.initializer if t.name in used]
    for field, values in (("node", nodes), ("initializer", initializers)):
        repeated = getattr(graph, field)
        del repeated[:]
        repeated.extend(values)
    out: bytes = model.SerializeToString()
    return out


def _own_constants(
    node: NodeProto, constants: dict[str, NDArray[np.generic]], axes: dict[str, int], graph: onnx.GraphProto
) -> None:
    """Give an operation constants of its own. A MatMul's second factor keeps its two axes, so it stays one product."""
    most = max(constants[n].ndim if n in constants else axes[n] for n in node.input)
    for i, name in enumerate(node.input):
        value, own = constants.get(name), f"{node.name}/constant_{i}"
        if name == own or value is None or value.dtype != np.float32:
            continue
        node.input[i] = own
        factor = node.op_type == "MatMul" and i == 1
        whole = value if factor else value.reshape((1,) * (most - value.ndim) + value.shape)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(whole), own))
