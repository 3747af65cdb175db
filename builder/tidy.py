"""Two habits of the exporter, undone before anybody compiles a graph. The numbers stay as they are.

Where precision is a flag (TensorRT 8), float32 islands are held by the names of layers, and a layer without one may be
float16: 1e-12 is 0 there. A constant's layer is named after its tensor, and one of fewer axes than what it is added to
gets a layer in between that has no name. So each constant becomes its operation's own: of as many axes, named after it.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

_BROADCAST = frozenset("Add Sub Mul Div Max Min MatMul".split())


def tidy(data: bytes) -> bytes:
    """The same graph without Identity of a constant, and with constants of full rank, named after what uses them."""
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
            _own(node, constants, axes, graph)
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


def _own(
    node: NodeProto, constants: dict[str, NDArray[np.generic]], axes: dict[str, int], graph: onnx.GraphProto
) -> None:
    """Give an operation its constants as its own. A product's second factor keeps its two axes: it is one product."""
    most = max(constants[n].ndim if n in constants else axes[n] for n in node.input)
    for i, name in enumerate(node.input):
        value, own = constants.get(name), f"{node.name}/constant_{i}"
        if name == own or value is None or value.dtype != np.float32:
            continue
        node.input[i] = own
        factor = node.op_type == "MatMul" and i == 1
        whole = value if factor else value.reshape((1,) * (most - value.ndim) + value.shape)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(whole), own))
