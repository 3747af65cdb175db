"""The exported graph is the torch graph, of the opset and the operations asked for, or it is not written."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

import builder.export
from builder.examples import example_windows
from builder.export import TOLERANCE, build_onnx, export, load_graph, parity
from builder.operations import ALLOWED, OPSET, check_graph
from edge.bundle import GRAPH, WEIGHTS, Bundle, open_bundle, write_bundle
from edge.engine import open_engine
from edge.errors import BundleError
from edge.score import match
from tests.trainer.made import ENCODER, windows
from trainer.encoder import Graph


@pytest.fixture(scope="module")
def graph(trained: Bundle) -> Graph:
    return load_graph(trained)


@pytest.fixture(scope="module")
def data(graph: Graph) -> bytes:
    return export(graph)


@pytest.fixture(scope="module")
def session(data: bytes) -> Iterator[ort.InferenceSession]:
    yield ort.InferenceSession(data, providers=["CPUExecutionProvider"])


def inputs(batch: int, categories: int, shots: int) -> dict[str, np.ndarray]:
    """Real poses with a fifth of the joints hidden, a random unit support with a ragged mask."""
    rng = np.random.default_rng([batch, categories, shots])
    names = ["walk", "fall", "wave", "squat", "clap", "jog"]
    joints, _ = windows(*(names[i % 6] for i in range(batch)), frames=16, seed=batch)
    visible = (rng.random((batch, 16, 15)) > 0.2).astype(np.float32)
    support = rng.standard_normal((categories, shots, 16)).astype(np.float32)
    support /= np.linalg.norm(support, axis=-1, keepdims=True)
    mask = (np.arange(shots) < rng.integers(1, shots + 1, (categories, 1))).astype(np.float32)
    return {"joints": joints.numpy(), "visible": visible, "support": support, "support_mask": mask}


@pytest.mark.parametrize(("batch", "categories", "shots"), [(1, 1, 1), (2, 3, 8), (5, 2, 3), (17, 1, 64), (6, 40, 5)])
def test_it_computes_what_torch_does_in_every_size(
    graph: Graph, session: ort.InferenceSession, batch: int, categories: int, shots: int
) -> None:
    feed = inputs(batch, categories, shots)
    embedding, distance = session.run(["embedding", "distance"], feed)
    with torch.no_grad():
        expected = graph(*(torch.from_numpy(feed[k]) for k in ("joints", "visible", "support", "support_mask")))
    assert embedding.shape == (batch, 16) and distance.shape == (batch, categories)
    np.testing.assert_allclose(embedding, expected[0].numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(distance, expected[1].numpy(), atol=TOLERANCE)
    for g in range(categories):
        kept = feed["support"][g, feed["support_mask"][g] > 0]
        np.testing.assert_allclose(distance[:, g], match(embedding, kept, ENCODER.temperature), atol=1e-4)


def test_hidden_coordinates_do_not_reach_the_exported_graph_either(session: ort.InferenceSession) -> None:
    feed = inputs(4, 2, 3)
    hidden = feed["visible"][..., None] == 0
    clean, dirty = (
        session.run(["embedding"], feed | {"joints": np.where(hidden, x, feed["joints"])})[0] for x in (0, 99)
    )
    np.testing.assert_allclose(clean, dirty.astype(np.float32), atol=1e-5)


def test_it_is_opset_17_with_named_free_axes_and_operations_off_the_list(data: bytes) -> None:
    model = onnx.load_from_string(data)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert {n.op_type for n in model.graph.node} <= ALLOWED
    assert not {"ReduceMean", "ReduceL2", "LayerNormalization", "Einsum", "If", "Loop"} & ALLOWED
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "joints": ["batch", 16, 15, 3],
        "visible": ["batch", 16, 15],
        "support": ["categories", "shots", 16],
        "support_mask": ["categories", "shots"],
        "embedding": ["batch", 16],
        "distance": ["batch", "categories"],
    }


def one_operation(operation: str, opset: int = OPSET, domain: str = "", **attributes: object) -> onnx.ModelProto:
    """x → operation → y"""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy")
    node = helper.make_node(operation, ["x"], ["y"], domain=domain, **attributes)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=imports, ir_version=8)


def test_another_opset_or_operation_is_refused() -> None:
    check_graph(one_operation("Relu"))
    with pytest.raises(BundleError, match=r"opset.*18.*reads opset 17"):
        check_graph(one_operation("Relu", 18))
    with pytest.raises(BundleError, match=r"opset.*16"):
        check_graph(one_operation("Relu", 16))
    with pytest.raises(BundleError, match=r"uses Erf"):
        check_graph(one_operation("Erf"))
    with pytest.raises(BundleError, match="uses ReduceMean"):
        check_graph(one_operation("ReduceMean", keepdims=1))
    with pytest.raises(BundleError, match=r"acme"):
        check_graph(one_operation("Relu", domain="acme"))


def test_build_writes_the_graph_with_its_parity(bundle: Bundle) -> None:
    before = bundle.manifest.files
    built = build_onnx(bundle)
    again = open_bundle(bundle.root)
    assert again == built
    m, data = again.manifest, (bundle.root / GRAPH).read_bytes()
    assert m.files == {**before, GRAPH: hashlib.sha256(data).hexdigest()} and again.read(GRAPH) == data
    assert m.opset == 17 and m.encoder == bundle.manifest.encoder and m.training == bundle.manifest.training
    assert m.parity["embedding"] <= 1e-4 and m.parity["distance"] <= 1e-4
    assert m.parity["against"] == f"torch {torch.__version__}"
    assert m.parity["runtime"] == f"onnxruntime {ort.__version__}"
    assert m.parity["windows"] == len(example_windows(16, 1.0)[0]) > 100
    engine = open_engine(again, max_batch=4)
    engine.staging.joints[:2], engine.staging.visible[:2] = (x.numpy() for x in windows("walk", "wave", frames=16))
    with torch.no_grad():
        expected = load_graph(again).encoder(*windows("walk", "wave", frames=16)).numpy()
    np.testing.assert_allclose(engine.run(2)[0], expected, atol=1e-4)


def test_the_parity_is_measured(graph: Graph, data: bytes) -> None:
    examples = example_windows(16, 1.0)
    assert 0 < parity(graph, data, examples)["embedding"] < 1e-4
    other = copy.deepcopy(graph)
    with torch.no_grad():
        other.encoder.leave.weight[0] += 0.5
    found = parity(other, data, examples)
    assert found["embedding"] > 1e-3 and found["distance"] > 1e-3


def test_the_examples_are_whole_windows_and_the_same_with_joints_hidden() -> None:
    joints, visible = example_windows(16, 1.0)
    n = len(joints) // 2
    assert joints.shape == (2 * n, 16, 15, 3) and visible.shape == (2 * n, 16, 15)
    assert visible[:n].min() == 1 and 0.08 < 1 - visible[n:].mean() < 0.12
    assert np.abs(joints[n:][visible[n:] == 0]).max() == 0
    np.testing.assert_array_equal(joints[n:][visible[n:] > 0], joints[:n][visible[n:] > 0])


def test_a_graph_that_differs_is_not_written(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (bundle.root / "manifest.json").read_bytes()
    for wrong in (2e-4, float("nan")):
        monkeypatch.setattr(builder.export, "parity", lambda *a, w=wrong: {"embedding": 0.0, "distance": w})
        with pytest.raises(BundleError, match="does not compute what torch computes"):
            build_onnx(bundle)
    assert not (bundle.root / GRAPH).exists() and (bundle.root / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("where", [0, 40, -1])
def test_one_changed_byte_in_the_weights_is_refused(bundle: Bundle, where: int) -> None:
    data = bytearray((bundle.root / WEIGHTS).read_bytes())
    data[where] ^= 1
    (bundle.root / WEIGHTS).write_bytes(data)
    with pytest.raises(BundleError, match=r"encoder\.safetensors.*sha256"):
        build_onnx(open_bundle(bundle.root))
    assert not (bundle.root / GRAPH).exists()


def test_weights_of_another_shape_or_form_are_refused(bundle: Bundle) -> None:
    path = bundle.root / "manifest.json"
    raw = json.loads(path.read_text())
    raw["architecture"]["width"] = 24
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="do not fit the architecture"):
        load_graph(open_bundle(bundle.root))
    for rubbish in (b"", b"no tensors", (10**12).to_bytes(8, "little") + b"{}"):
        written = write_bundle(bundle.root, bundle.manifest, {WEIGHTS: rubbish})
        with pytest.raises(BundleError, match="do not fit the architecture"):
            load_graph(written)


def test_the_architecture_survives_the_manifest(trained: Bundle, graph: Graph) -> None:
    assert load_graph(open_bundle(trained.root)).encoder.config == ENCODER == graph.encoder.config
    assert not graph.training and graph.match.temperature == ENCODER.temperature
