"""The float16 graph: typed as the islands say, runnable, and rounded as float16 rounds."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from builder.export import export, load_graph
from builder.half import ISLANDS, in_island, part_of, parts, rounded, to_half, types_of
from builder.operations import OPSET, TYPED, check_graph
from edge.bundle import Bundle
from edge.errors import BundleError
from tests.builder.test_export import inputs

HALF, WHOLE = TensorProto.FLOAT16, TensorProto.FLOAT
OUTPUTS = ["embedding", "distance"]


@pytest.fixture(scope="module")
def data(trained: Bundle) -> bytes:
    return export(load_graph(trained))


@pytest.fixture(scope="module")
def typed(data: bytes) -> bytes:
    return to_half(data)


def run(data: bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: list[np.ndarray] = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feed)
    return found


def small(*nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    """x (n, 3) → nodes → y"""
    x, y = (helper.make_tensor_value_info(n, WHOLE, ["n", 3]) for n in "xy")
    values = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "g", [x], [y], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    out: bytes = model.SerializeToString()
    return out


def test_islands_are_float32_and_all_other_arithmetic_is_float16(data: bytes, typed: bytes) -> None:
    model = onnx.load_from_string(typed)
    check_graph(model, TYPED)
    kinds = types_of(model)
    assert {kinds[v.name] for v in (*model.graph.input, *model.graph.output)} == {WHOLE}
    arithmetic = {"Add", "Sub", "Mul", "Div", "MatMul", "Relu", "Sqrt", "ReduceSum", "Exp", "Min", "Max", "ReduceMax"}
    count = {HALF: 0, WHOLE: 0}
    for node in model.graph.node:
        touched = {kinds[n] for n in (*node.input, *node.output) if kinds.get(n) in (HALF, WHOLE)}
        if node.op_type in arithmetic and touched:
            expected = WHOLE if in_island(node.name, ISLANDS) else HALF
            assert touched == {expected}, node.name
            count[expected] += 1
        elif node.op_type != "Cast":
            assert len(touched) <= 1, node.name
    assert count[HALF] > 20 and count[WHOLE] > 60
    # The weights of the body are halved, each cast is made once, and nothing but the body's edge is cast.
    assert len(typed) < len(data)
    casts = [tuple(n.input) for n in model.graph.node if n.op_type == "Cast"]
    assert 1 <= len(casts) == len(set(casts)) <= 5
    before = {n.name for n in onnx.load_from_string(data).graph.node}
    assert {n.name for n in model.graph.node if n.op_type != "Cast"} <= before


@pytest.mark.parametrize(("batch", "categories", "shots"), [(1, 1, 1), (5, 2, 3), (17, 3, 16)])
def test_it_runs_in_every_size_near_the_float32_graph(
    data: bytes, typed: bytes, batch: int, categories: int, shots: int
) -> None:
    feed = inputs(batch, categories, shots)
    for graph in (typed, rounded(typed)):
        for expected, found in zip(run(data, feed), run(graph, feed), strict=True):
            assert found.dtype == np.float32 and found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=4e-3)


def test_rounding_is_what_numpy_computes_of_the_typed_graph(data: bytes) -> None:
    """numpy really calculates in float16. With everything but sums in float16 the two differ by a sum's order only."""
    feed = inputs(6, 2, 4)
    for islands in (ISLANDS, ("/encoder/normalise/", "/match/")):
        typed = to_half(data, islands)
        numpy = ReferenceEvaluator(onnx.load_from_string(typed)).run(None, feed)
        exact, short = run(data, feed), run(rounded(typed), feed)
        error = [np.abs(a - b).max() for a, b in zip(exact, numpy, strict=True)]
        for i in range(2):
            assert 0.4 * error[i] < np.abs(exact[i] - short[i]).max() < 2.5 * error[i]


def test_rounding_is_exact_where_no_sum_is_taken() -> None:
    a, b = np.array([0.1, 3.3, 1e-5], np.float32), np.array([1, 1000, 0], np.float32)
    nodes = (helper.make_node("Mul", ["x", "a"], ["m"], "/p/Mul"), helper.make_node("Add", ["m", "b"], ["y"], "/q/Add"))
    x = np.random.default_rng(0).normal(0, 3, (50, 3)).astype(np.float32)
    expected = x.astype(np.float16) * a.astype(np.float16) + b.astype(np.float16)
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(run(rounded(to_half(small(*nodes, a=a, b=b), ())), {"x": x})[0], expected)
    mixed = (x.astype(np.float16) * a.astype(np.float16)).astype(np.float32) + b
    np.testing.assert_array_equal(run(rounded(to_half(small(*nodes, a=a, b=b), ("/q/",))), {"x": x})[0], mixed)


def test_with_everything_an_island_nothing_changes(data: bytes) -> None:
    whole = to_half(data, ("/",))
    assert HALF not in types_of(onnx.load_from_string(whole)).values()
    feed = inputs(7, 3, 5)
    for expected, found in zip(run(data, feed), run(whole, feed), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_constant_beyond_float16_is_refused_by_the_name_of_its_part() -> None:
    node = helper.make_node("Mul", ["x", "k"], ["y"], "/encoder/blocks.1/first/Mul")
    data = small(node, k=np.array([1, 1e6, 1], np.float32))
    with pytest.raises(BundleError, match=r"reaches 1e\+06.*keep '/encoder/blocks.1/' in float32"):
        to_half(data, ())
    to_half(data, ("/encoder/blocks.1/",))


def test_a_half_output_that_an_island_reads_too_is_cast_for_both(data: bytes) -> None:
    everything = [p for p in parts(onnx.load_from_string(data)) if p != "/encoder/unit/"]
    feed = inputs(3, 2, 2)
    embedding, distance = run(to_half(data, everything), feed)
    np.testing.assert_allclose(embedding, run(data, feed)[0], atol=1e-3)
    assert embedding.dtype == distance.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("/encoder/blocks.2/first/linear/MatMul", "/encoder/blocks.2/"),
        ("/encoder/normalise/Div_10", "/encoder/normalise/"),
        ("/encoder/enter/linear/MatMul", "/encoder/enter/"),
        ("/encoder/leave/MatMul", "/encoder/leave/"),
        ("/encoder/ReduceSum_1", "/encoder/ReduceSum"),
        ("/encoder/Sqrt", "/encoder/Sqrt"),
        ("/match/Sub_3", "/match/"),
        ("Constant_116", ""),
    ],
)
def test_parts(name: str, part: str) -> None:
    assert part_of(name) == part and (not part or in_island(name, [part]))


def test_every_island_is_there_in_the_float32_graph_too(data: bytes) -> None:
    """The same list names the layers where precision is a flag; a renamed module must not slip out of it."""
    names = [n.name for n in onnx.load_from_string(data).graph.node if n.op_type != "Constant"]
    for prefix in ISLANDS:
        assert any(in_island(name, [prefix]) for name in names), prefix
    divided = [n for n in onnx.load_from_string(data).graph.node if n.op_type in ("Div", "Sqrt", "Exp")]
    assert [n.name for n in divided if not in_island(n.name, ISLANDS)] == []


def test_every_part_is_named_once_in_the_graph_s_order(data: bytes) -> None:
    model = onnx.load_from_string(data)
    found = parts(model)
    assert found[0] == "/encoder/normalise/" and found[-1] == "/match/" and len(found) == len(set(found))
    body = parts(model, ISLANDS)
    assert [p for p in found if p in body] == body
    assert {"/encoder/scale_in/", "/encoder/blocks.0/", "/encoder/leave/"} <= set(body)
    assert not any(in_island(p, ISLANDS) for p in body)
