"""Allow-lists: what each TensorRT would refuse or misread is said, and an export asserts it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.export import export, load_graph
from builder.half import to_half
from builder.operations import ALLOWED, TENSORRT, TYPED, check_graph, check_whole, objections
from edge.bundle import Bundle
from edge.errors import BundleError

BY = {p.version: p for p in TENSORRT}


def model(
    *nodes: onnx.NodeProto, opset: int = 17, kind: int = TensorProto.FLOAT, **constants: object
) -> onnx.ModelProto:
    """x, s → nodes → y"""
    x, y = (helper.make_tensor_value_info(n, kind, ["n", 4]) for n in "xy")
    s = helper.make_tensor_value_info("s", TensorProto.INT64, [1])
    values = [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "g", [x, s], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def said(m: onnx.ModelProto) -> dict[str, str]:
    return {p.version: "; ".join(objections(m, p)) for p in TENSORRT}


def test_the_versions_are_those_whose_interfaces_are_known() -> None:
    assert list(BY) == ["8.5", "8.6", "10.3", "10.13", "11"]
    assert [p.version for p in TYPED] == ["10.3", "10.13", "11"]
    assert not BY["8.5"].extra & {"LayerNormalization"} and "LayerNormalization" in BY["8.6"].extra


def test_the_exported_graph_passes_every_list_and_the_typed_one_those_that_bind_types(trained: Bundle) -> None:
    data = export(load_graph(trained))
    m = onnx.load_from_string(data)
    assert set(said(m).values()) == {""}
    typed = onnx.load_from_string(to_half(data))
    found = said(typed)
    assert all(found[p.version] == "" for p in TYPED)
    assert "precision as a flag" in found["8.5"] and "precision as a flag" in found["8.6"]
    check_graph(typed, TYPED)
    with pytest.raises(BundleError, match=r"TensorRT 8.5 would not read .*: float16 in the graph"):
        check_graph(typed)


def test_layer_normalisation_is_unknown_to_the_oldest_only() -> None:
    found = said(model(helper.make_node("LayerNormalization", ["x", "w"], ["y"], "/n"), w=np.ones(4, np.float32)))
    assert found == {**dict.fromkeys(BY, ""), "8.5": "LayerNormalization not on its list"}


def test_a_later_opset_is_refused_where_it_is_not_read() -> None:
    found = said(model(helper.make_node("Relu", ["x"], ["y"], "/n"), opset=18))
    assert found == {**dict.fromkeys(BY, ""), **dict.fromkeys(("8.5", "8.6"), "opset 18, but it reads up to 17")}
    assert all("opset 21" in t for t in said(model(helper.make_node("Relu", ["x"], ["y"], "/n"), opset=21)).values())


@pytest.mark.parametrize("operation", ["ReduceMax", "ReduceMean", "ReduceL2"])
def test_axes_as_an_input_are_said_to_be_ignored(operation: str) -> None:
    m = model(helper.make_node(operation, ["x", "a"], ["y"], "/p/R", keepdims=1), opset=18, a=[1])
    found = said(m)
    assert all(f"{operation} '/p/R' has its axes as an input, which it ignores" in found[v] for v in ("8.5", "8.6"))
    assert not any("ignores" in found[p.version] for p in TYPED)
    attribute = model(helper.make_node("ReduceMax", ["x"], ["y"], "/p/R", axes=[1], keepdims=1))
    assert set(said(attribute).values()) == {""}


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("ReduceSum", ["x", "s"], ["y"], "/p/n"), {}),
        (helper.make_node("Unsqueeze", ["x", "s"], ["y"], "/p/n"), {}),
        (helper.make_node("Slice", ["x", "c", "c", "s"], ["y"], "/p/n"), {"c": [1]}),
    ],
)
def test_axes_that_are_computed_are_refused_and_constant_ones_are_not(
    node: onnx.NodeProto, constants: dict[str, object]
) -> None:
    m = model(node, **constants)
    assert all(f"{node.op_type} '/p/n' has axes that are not constant" in text for text in said(m).values())
    with pytest.raises(BundleError, match=r"TensorRT 8\.5 would not read"):
        check_graph(m)
    constant = helper.make_node("Constant", [], ["k"], "/k", value=numpy_helper.from_array(np.array([1]), "v"))
    fixed = helper.make_node(node.op_type, [{"s": "k"}.get(i, i) for i in node.input], ["y"], "/p/n")
    assert set(said(model(constant, fixed, **constants)).values()) == {""}


def test_types_that_no_engine_computes_in_are_named() -> None:
    m = model(helper.make_node("Relu", ["x"], ["y"], "/n"), kind=TensorProto.DOUBLE)
    assert all("ONNX's type 11" in text for text in said(m).values())
    m = model(helper.make_node("Cast", ["x"], ["y"], "/n", to=TensorProto.BFLOAT16))
    assert all("ONNX's type 16" in text for text in said(m).values())


def test_other_domains_and_operations_are_named() -> None:
    m = model(helper.make_node("Gelu", ["x"], ["y"], "/n", domain="acme"))
    m.opset_import.append(helper.make_opsetid("acme", 1))
    assert all("operations of acme" in t and "Gelu not on its list" in t for t in said(m).values())


def test_what_is_allowed_has_no_operation_whose_axes_were_misread() -> None:
    assert not {"ReduceMean", "ReduceL2", "LayerNormalization", "Einsum", "If", "Loop"} & ALLOWED


def test_a_clip_is_read_alike_everywhere_and_is_in_the_way_of_a_plan(trained: Bundle) -> None:
    """TensorRT 8.6 compiles the whole graph as one, but over a Clip; graphs of before run on as they are."""
    old = model(
        helper.make_node("Clip", ["x", "low", "high"], ["y"], "/a/Clip"), low=np.float32(-1), high=np.float32(1)
    )
    check_graph(old)
    with pytest.raises(BundleError, match=r"'/a/Clip'.*TensorRT 8\.6.*export it again"):
        check_whole(old)
    check_whole(onnx.load_from_string(export(load_graph(trained))))
