"""The graph for several windows at once computes what the other does, each window for itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from builder.export import export, load_graph
from builder.half import to_half
from builder.operations import check_export
from builder.together import can_widen, widened
from edge.bundle import GRAPH, Bundle, open_bundle
from edge.skeleton import Float, J
from tests.trainer.made import ENCODER, windows
from trainer.encoder import Encoder, Graph

MOTIONS = ("walk", "squat", "wave", "clap", "jog", "lift_box", "fall", "pick_up")


def run(graph: bytes, joints: Float, visible: Float) -> list[Float]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    size = {i.name: i.shape for i in session.get_inputs()}["support"][-1]
    support = np.random.default_rng(0).normal(size=(3, 4, size)).astype(np.float32)
    support /= np.linalg.norm(support, axis=-1, keepdims=True)
    feed = {"joints": joints, "visible": visible, "support": support, "support_mask": np.ones((3, 4), np.float32)}
    found: list[Float] = session.run(["embedding", "distance"], feed)
    return found


@pytest.fixture(scope="module")
def given() -> tuple[Float, Float]:
    """Sixteen windows, one of them of nobody."""
    joints, visible = (
        np.concatenate([np.asarray(windows(*MOTIONS, frames=16, seed=s)[i]) for s in (1, 2)]) for i in (0, 1)
    )
    visible[3] = 0
    visible[5, :, ::2] = 0
    return joints, visible


@pytest.mark.parametrize("together", [2, 4, 8, 16])
def test_it_computes_the_same(trained: Bundle, given: tuple[Float, Float], together: int) -> None:
    data = export(load_graph(trained))
    assert can_widen(data)
    wide = widened(data, together)
    check_export(wide)
    for found, want in zip(run(wide, *given), run(data, *given), strict=True):
        np.testing.assert_allclose(found, want, atol=2e-6)
    with pytest.raises(Exception, match=r"(?i)reshape"):
        run(wide, given[0][: together - 1], given[1][: together - 1])


@pytest.mark.parametrize("coefficients", [1, 5, 9])
def test_whatever_the_number_of_coefficients(given: tuple[Float, Float], coefficients: int) -> None:
    """With five there are as many numbers to a joint, padded, as joints."""
    torch.manual_seed(2)
    graph = Graph(Encoder(replace(ENCODER, coefficients=coefficients))).eval()
    data = export(graph)
    for found, want in zip(run(widened(data, 8), *given), run(data, *given), strict=True):
        np.testing.assert_allclose(found, want, atol=2e-6)


def test_no_window_has_a_part_in_another_s_numbers(trained: Bundle, given: tuple[Float, Float]) -> None:
    wide = widened(export(load_graph(trained)), 8)
    before = run(wide, *given)
    joints = given[0].copy()
    joints[2] = np.random.default_rng(1).normal(0, 1e4, joints[2].shape)
    after = run(wide, joints, given[1])
    others = np.arange(len(joints)) != 2
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a[others], b[others], atol=2e-6)
        assert np.abs(a[2] - b[2]).max() > 1e-3


def test_its_float16_form_is_that_of_the_other(trained: Bundle, given: tuple[Float, Float]) -> None:
    data = export(load_graph(trained))
    typed = to_half(widened(data, 8))
    for found, want in zip(run(typed, *given), run(to_half(data), *given), strict=True):
        np.testing.assert_allclose(found, want, atol=5e-3)


def test_a_graph_without_the_parts_is_known(trained: Bundle) -> None:
    model = onnx.load_from_string(export(load_graph(trained)))
    for node in model.graph.node:
        node.name = node.name.replace("/mix/", "/")
    assert not can_widen(model.SerializeToString())


def test_nothing_that_can_be_sent_comes_near_the_end_of_float16() -> None:
    """Or an infinity of one window, times the noughts between the blocks, would spoil seven others."""
    model = onnx.load_from_string(open_bundle().read(GRAPH))
    typed = onnx.load_from_string(to_half(open_bundle().read(GRAPH)))
    inferred = onnx.shape_inference.infer_shapes(typed).graph
    halves = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    known = {o for n in model.graph.node for o in n.output}
    watched = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in sorted(halves & known)]
    assert len(watched) > 60
    del model.graph.output[:]
    model.graph.output.extend(watched)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng, shape = np.random.default_rng(0), (256, 48, J, 3)
    signs = np.sign(rng.normal(size=(256, 1, J, 3))) * np.sign(
        np.sin(np.arange(48)[:, None, None] * rng.random((256, 1, 1, 1)))
    )
    wild = rng.normal(0, 0.3, shape)
    wild[:, :, 5] *= 1e6
    absurd = {
        "noise": rng.normal(0, 500, shape) + 1e5, "one joint": wild, "cauchy": rng.standard_cauchy(shape),
        "square": signs * 1e3, "signs": np.sign(rng.normal(size=shape)) * 1e6,
    }  # fmt: skip
    for name, joints in absurd.items():
        for visible in (np.ones(shape[:3]), rng.random(shape[:3]) > 0.5):
            feed = {"joints": joints.astype(np.float32), "visible": visible.astype(np.float32)}
            rest = {"support": np.zeros((1, 1, 128), np.float32), "support_mask": np.ones((1, 1), np.float32)}
            greatest = max(float(np.abs(x).max()) for x in session.run(None, feed | rest))
            assert greatest < 65504 / 16, f"{name}: {greatest:.0f}"
