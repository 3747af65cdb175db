"""What type each layer is asked for, where precision is a flag."""

from __future__ import annotations

import onnx
import pytest

from builder.export import export, load_graph
from builder.half import types_of
from builder.islands import ISLANDS, Layer, types
from edge.bundle import Bundle

MOVES = {"Concat", "Gather", "Reshape", "Slice", "Transpose", "Unsqueeze"}


def kinds(layers: list[Layer], ask: bool = True) -> list[str]:
    return list(types(layers, ["joints"], ["/a/", "/c/"], ask))


def test_islands_are_held_and_the_rest_is_asked_for_or_left() -> None:
    layers = [Layer("/a/Mul", ["joints"], ["x"]), Layer("/b/Mul", ["x"], ["y"]), Layer("/c/Mul", ["y"], ["z"])]
    assert kinds(layers) == ["float32", "float16", "float32"]
    assert kinds(layers, ask=False) == ["float32", "", "float32"]


def test_what_moves_belongs_to_what_it_moves() -> None:
    layers = [
        Layer("/b/Transpose", ["joints"], ["t"], moves=True),  # of the input itself
        Layer("/a/Mul", ["t"], ["x"]),
        Layer("/b/Concat", ["x", "t"], ["c"], moves=True),
        Layer("(Unnamed Layer* 4) [Shuffle]", ["c"], ["s"], moves=True),
        Layer("/b/Mul", ["s"], ["y"]),
        Layer("/b/Reshape", ["y"], ["r"], moves=True),
        Layer("/b/Concat_1", ["y", "x"], ["d"], moves=True),
        Layer("(Unnamed Layer* 8) [Shuffle]", ["r"], ["u"], moves=True),
    ]
    exact = ["float32"] * 4
    assert kinds(layers) == [*exact, "float16", "", "", ""] and kinds(layers, ask=False) == [*exact, "", "", "", ""]


def test_what_the_parser_adds_without_a_name_is_never_asked_for() -> None:
    nameless = Layer("(Unnamed Layer* 2) [ElementWise]", ["x"], ["y"])
    assert kinds([Layer("/a/Mul", ["joints"], ["x"]), nameless]) == ["float32", "float32"]
    assert kinds([Layer("/b/Mul", ["joints"], ["x"]), nameless]) == ["float16", ""]


def test_constants_are_held_in_islands_only() -> None:
    layers = [Layer("/a/Add/constant_1", [], ["k"], constant=True), Layer("weight", [], ["w"], constant=True)]
    assert kinds([*layers, Layer("/b/Mul/constant_1", [], ["m"], constant=True)]) == ["float32", "", ""]


@pytest.mark.parametrize("ask", [True, False])
def test_the_export_is_asked_for_as_its_typed_form_is_typed(trained: Bundle, ask: bool) -> None:
    model = onnx.load_from_string(export(load_graph(trained)))
    is_float = {name for name, kind in types_of(model).items() if kind == onnx.TensorProto.FLOAT}
    constant = {t.name for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type != "Constant"]
    layers = [
        Layer(
            n.name,
            [i for i in n.input if i in is_float - constant],
            [o for o in n.output if o in is_float],
            moves=n.op_type in MOVES,
        )
        for n in nodes
    ]
    found = dict(
        zip((n.name for n in nodes), types(layers, (i.name for i in model.graph.input), ISLANDS, ask), strict=True)
    )
    assert {found[n] for n in found if n.startswith(("/encoder/normalise/", "/match/"))} == {"float32"}
    body = "float16" if ask else ""
    for name in ("blocks.0/first/linear/MatMul", "blocks.0/second/norm/Mul", "leave/MatMul", "leave_head/Gemm"):
        assert found[f"/encoder/{name}"] == body
    assert found["/encoder/Transpose"] == "float32" and found["/encoder/blocks.0/first/Reshape"] == ""
