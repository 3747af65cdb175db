"""Constants belong to what uses them, by their names and their axes, and the numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.export import export, load_graph
from builder.islands import ISLANDS, in_island
from builder.tidy import tidy
from edge.bundle import Bundle
from tests.builder.test_half import run


def made() -> bytes:
    """y = (x · W + b − c) with c an alias of b; a constant that nothing uses, and one behind a Constant node."""
    rng = np.random.default_rng(0)
    weights = {"W": rng.normal(size=(4, 3)), "b": rng.normal(size=3), "idle": np.ones(2)}
    nodes = [
        helper.make_node("Identity", ["b"], ["c"], "Identity_7"),
        helper.make_node("Constant", [], ["k"], "Constant_1", value=numpy_helper.from_array(np.float32(0.25))),
        helper.make_node("MatMul", ["x", "W"], ["m"], "/p/MatMul"),
        helper.make_node("Add", ["m", "b"], ["s"], "/p/Add"),
        helper.make_node("Sub", ["c", "s"], ["d"], "/p/Sub"),
        helper.make_node("Mul", ["k", "d"], ["y"], "/q/Mul"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    out: bytes = model.SerializeToString()
    return out


def test_constants_take_the_name_and_the_axes_of_their_operation() -> None:
    before, after = made(), tidy(made())
    graph = onnx.load_from_string(after).graph
    assert [n.op_type for n in graph.node] == ["MatMul", "Add", "Sub", "Mul"]
    sizes = {t.name: tuple(t.dims) for t in graph.initializer}
    assert sizes == {
        "/p/MatMul/constant_1": (4, 3),  # the second factor of a product keeps its axes
        "/p/Add/constant_1": (1, 1, 3),
        "/p/Sub/constant_0": (1, 1, 3),
        "/q/Mul/constant_0": (1, 1, 1),
    }
    onnx.checker.check_model(onnx.load_from_string(after), full_check=True)
    x = {"x": np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)}
    np.testing.assert_array_equal(run(after, x)[0], run(before, x)[0])
    assert tidy(after) == after


@pytest.fixture(scope="module")
def graph(trained: Bundle) -> onnx.GraphProto:
    return onnx.load_from_string(export(load_graph(trained))).graph


def test_no_island_of_the_export_reads_a_constant_under_another_name(graph: onnx.GraphProto) -> None:
    """Else TensorRT 8 may round it: 1e-12 to 0."""
    constants = {t.name for t in graph.initializer} | {n.output[0] for n in graph.node if n.op_type == "Constant"}
    kinds = {t.name: t.data_type for t in graph.initializer}
    kinds |= {n.output[0]: n.attribute[0].t.data_type for n in graph.node if n.op_type == "Constant"}
    seen = 0
    for node in graph.node:
        if not in_island(node.name, ISLANDS):
            continue
        for i, name in enumerate(node.input):
            if name in constants and kinds[name] == TensorProto.FLOAT:
                assert name == f"{node.name}/constant_{i}"
                seen += 1
    assert seen > 20
    assert all(n.name.startswith("/") or n.op_type == "Constant" for n in graph.node)
