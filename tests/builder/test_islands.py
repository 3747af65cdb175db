"""What type each layer is asked for, where precision is a flag."""

from __future__ import annotations

import onnx
import pytest

from builder.export import export, load_graph
from builder.half import types_of
from builder.islands import ISLANDS, Does, Layer, layer_types
from edge.bundle import Bundle

MOVES = {"Concat", "Gather", "Slice"}
RESHAPES = {"Reshape", "Transpose", "Unsqueeze"}


def kinds(layers: list[Layer], request_half: bool = True) -> list[str]:
    return list(layer_types(layers, ["joints"], ["/a/", "/c/"], request_half))


def test_islands_are_held_and_the_rest_is_asked_for_or_left() -> None:
    layers = [Layer("/a/Mul", ["joints"], ["x"]), Layer("/b/Mul", ["x"], ["y"]), Layer("/c/Mul", ["y"], ["z"])]
    assert kinds(layers) == ["float32", "float16", "float32"]
    assert kinds(layers, request_half=False) == ["float32", "", "float32"]


def test_what_moves_belongs_to_what_it_moves() -> None:
    layers = [
        Layer("/b/Slice", ["joints"], ["t"], "moves"),  # of the input itself
        Layer("/a/Mul", ["t"], ["x"]),
        Layer("/b/Concat", ["x", "t"], ["c"], "moves"),
        Layer("/b/Mul", ["c"], ["y"]),
        Layer("/b/Gather", ["y"], ["r"], "moves"),
        Layer("/b/Concat_1", ["y", "x"], ["d"], "moves"),
    ]
    exact = ["float32"] * 3
    assert kinds(layers) == [*exact, "float16", "", ""] and kinds(layers, request_half=False) == [*exact, "", "", ""]


def test_where_float16_is_asked_for_only_what_is_given_is_reshaped_in_float32() -> None:
    layers = [
        Layer("/b/Reshape", ["joints"], ["r"], "reshapes"),
        Layer("/a/Transpose", ["r"], ["t"], "reshapes"),
        Layer("/a/Add/constant_1", [], ["k"], "is constant"),
        Layer("(Unnamed Layer* 3) [Shuffle]", ["k"], ["s"], "reshapes"),  # a constant's axes, as its reader has them
        Layer("/a/Add", ["t", "s"], ["x"]),
        Layer("/a/Reshape", ["x"], ["y"], "reshapes"),
        Layer("(Unnamed Layer* 6) [Shuffle]", ["x"], ["z"], "reshapes"),
        Layer("/b/Concat", ["y", "x"], ["c"], "moves"),
        Layer("/c/Add", ["y"], ["d"]),
        Layer("/b/Transpose", ["c"], ["e"], "reshapes"),
    ]
    assert kinds(layers) == [*["float32"] * 5, "", "", "", "float32", ""]
    assert kinds(layers, request_half=False) == ["float32"] * 10


def test_what_the_parser_adds_without_a_name_is_never_asked_for() -> None:
    nameless = Layer("(Unnamed Layer* 2) [ElementWise]", ["x"], ["y"])
    assert kinds([Layer("/a/Mul", ["joints"], ["x"]), nameless]) == ["float32", "float32"]
    assert kinds([Layer("/b/Mul", ["joints"], ["x"]), nameless]) == ["float16", ""]


def test_constants_are_held_in_islands_only() -> None:
    layers = [Layer("/a/Add/constant_1", [], ["k"], "is constant"), Layer("weight", [], ["w"], "is constant")]
    assert kinds([*layers, Layer("/b/Mul/constant_1", [], ["m"], "is constant")]) == ["float32", "", ""]


def does(op: str) -> Does:
    return "moves" if op in MOVES else "reshapes" if op in RESHAPES else "computes"


@pytest.mark.parametrize("request_half", [True, False])
def test_the_export_is_asked_for_as_its_typed_form_is_typed(trained: Bundle, request_half: bool) -> None:
    model = onnx.load_from_string(export(load_graph(trained)))
    is_float = {name for name, kind in types_of(model).items() if kind == onnx.TensorProto.FLOAT}
    constant = {t.name for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type != "Constant"]
    layers = [
        Layer(
            n.name,
            [i for i in n.input if i in is_float - constant],
            [o for o in n.output if o in is_float],
            does(n.op_type),
        )
        for n in nodes
    ]
    found = dict(
        zip(
            (n.name for n in nodes),
            layer_types(layers, (i.name for i in model.graph.input), ISLANDS, request_half),
            strict=True,
        )
    )
    inside = {n.name for n in nodes if n.name.startswith(("/encoder/normalise/", "/match/"))}
    free = {n for n in inside if not found[n]}
    moved = {n.name for n in nodes if n.name in inside and n.op_type in RESHAPES}
    given = {"/encoder/normalise/Transpose", "/encoder/normalise/Transpose_1", "/encoder/normalise/Unsqueeze"}
    given |= {"/encoder/normalise/Reshape_2"}  # of what is visible, which the fill mixes
    given |= {"/match/Unsqueeze"}  # of the support's mask; the others turn the inputs
    assert given < moved and free == (moved - given if request_half else set())
    assert {found[n] for n in inside - free} == {"float32"}
    body = "float16" if request_half else ""
    for name in ("blocks.0/first/linear/MatMul", "blocks.0/second/norm/Mul", "leave/MatMul", "leave_head/Gemm"):
        assert found[f"/encoder/{name}"] == body
    assert found["/encoder/join/Reshape"] == ("" if request_half else "float32") and found["/encoder/Reshape"] == ""
