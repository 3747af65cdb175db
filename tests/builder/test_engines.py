"""`haad-edge build --precision fp16`: what it writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from builder import gate
from builder.engines import HALF, build_half
from builder.export import build_onnx
from builder.half import ISLANDS, in_island, to_half, types_of
from edge.bundle import GRAPH, Bundle, open_bundle, write_bundle
from edge.cli import make_app
from edge.engine import open_engine
from edge.engine.record import EngineRecord, engine_names, read_record
from edge.errors import BundleError
from tests.builder.test_export import inputs

FILES = ["engines/onnx-fp16/engine.onnx", "engines/onnx-fp16/engine.json"]


@pytest.fixture(scope="session")
def halved(trained: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Built with --precision fp16. Do not change it."""
    root = tmp_path_factory.mktemp("halved") / "bundle"
    return build_half(open_bundle(shutil.copytree(trained.root, root)))[0]


def test_it_writes_the_float32_graph_as_ever_and_the_engine_beside_it(halved: Bundle, bundle: Bundle) -> None:
    plain = build_onnx(bundle)
    assert halved.read(GRAPH) == plain.read(GRAPH)
    again = open_bundle(halved.root)
    assert again == halved and engine_names(again) == [HALF]
    assert list(again.manifest.files) == [*plain.manifest.files, *FILES]
    assert again.manifest.model_copy(update={"files": plain.manifest.files}) == plain.manifest
    for name in FILES:
        data = (halved.root / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == again.manifest.files[name]
    assert open_engine(again, max_batch=2).name == open_engine(plain, max_batch=2).name


def test_the_record_says_what_it_is(halved: Bundle) -> None:
    record, typed = read_record(halved, HALF), halved.read(FILES[0])
    raw = json.loads(halved.read(FILES[1]))
    assert set(raw) == set(EngineRecord.model_fields) and raw["format"] == 1 and raw["target"] == HALF
    assert record.graph == hashlib.sha256(halved.read(GRAPH)).hexdigest()
    assert record.sha256 == hashlib.sha256(typed).hexdigest() and record.model == halved.model
    assert (record.precision, record.opset, record.islands) == ("fp16", 17, list(ISLANDS))
    assert record.inputs["joints"] == ["batch", 16, 15, 3] and record.outputs["distance"] == ["batch", "categories"]
    assert record.reads == ["10.3", "10.13", "11"] and record.runtime == f"onnxruntime {ort.__version__}"
    assert record.gate.cosine >= 0.999 and 0 < record.gate.distance <= 2e-3 and record.gate.auroc <= 2e-3
    assert record.gate.limits == {"cosine": 0.999, "distance": 2e-3, "auroc": 2e-3} and record.gate.windows > 200
    assert record.build_seconds > 0
    assert list(record.latency_ms) == ["1", "16", "64"] and all(t > 0 for t in record.latency_ms.values())
    assert to_half(halved.read(GRAPH)) == typed


def test_the_engine_runs_and_says_nearly_what_the_float32_graph_says(halved: Bundle) -> None:
    feed = inputs(9, 2, 5)
    exact, short = (
        ort.InferenceSession(halved.read(name), providers=["CPUExecutionProvider"]).run(None, feed)
        for name in (GRAPH, FILES[0])
    )
    for a, b in zip(exact, short, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_a_part_can_be_kept_in_float32_and_an_unknown_one_is_refused(bundle: Bundle) -> None:
    built, record = build_half(bundle, ["/encoder/scale_in/"])
    assert record.islands == [*ISLANDS, "/encoder/scale_in/"]
    model = onnx.load_from_string(built.read(FILES[0]))
    kinds = types_of(model)
    inside = [n for n in model.graph.node if in_island(n.name, ["/encoder/scale_in/"]) and n.op_type != "Cast"]
    assert inside and all(kinds[name] != onnx.TensorProto.FLOAT16 for n in inside for name in n.output)
    with pytest.raises(BundleError, match="nothing is left to be float16"):
        build_half(bundle, ["/encoder/"])
    for wrong in ("/encoder/nothing/", ""):
        with pytest.raises(BundleError, match=r"no operation of the graph.*use one of: .*/encoder/leave/"):
            build_half(bundle, [wrong])


def test_what_the_gate_refuses_is_not_written(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "DISTANCE", 1e-9)
    monkeypatch.setattr(gate, "what_to_keep", lambda *given: ["/encoder/leave/"])  # its own tests are slow enough
    with pytest.raises(BundleError, match=r"fails the gate: distances differ by up to .*--float32 /encoder/"):
        build_half(bundle)
    left = open_bundle(bundle.root)
    assert GRAPH in left.manifest.files and engine_names(left) == [] and not (bundle.root / "engines").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "field 'format'"),
        ({"islands": "none"}, "field 'islands'"),
        ({"gate": {"cosine": "high"}}, "field 'gate.cosine'"),
        ({"more": 1}, "field 'more'"),
    ],
)
def test_a_record_that_is_none_is_refused_by_its_field(
    halved: Bundle, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    copy = open_bundle(shutil.copytree(halved.root, tmp_path / "b"))
    raw = json.dumps(json.loads(copy.read(FILES[1])) | change).encode()
    changed = write_bundle(copy.root, copy.manifest, {FILES[1]: raw})
    with pytest.raises(BundleError, match=said):
        read_record(changed, HALF)
    with pytest.raises(BundleError, match="Invalid JSON"):
        read_record(write_bundle(copy.root, copy.manifest, {FILES[1]: b"{"}), HALF)
    (copy.root / FILES[1]).write_bytes(raw + b" ")
    with pytest.raises(BundleError, match="sha256"):
        read_record(copy, HALF)


def test_the_command(bundle: Bundle) -> None:
    def build(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(make_app(), ["build", str(bundle.root), *options])
        return result.exit_code, "".join(result.output.split())

    code, printed = build("--target", "onnx", "--precision", "fp16", "--float32", "/encoder/leave/")
    assert code == 0 and "readablebyTensorRT10.3,10.13,11,accordingtotheirlists" in printed and "gateover" in printed
    assert read_record(open_bundle(bundle.root), HALF).islands[-1] == "/encoder/leave/"
    assert "tomakeitanew" not in build("--target", "onnx")[1]  # the same graph as before
    made = open_bundle(bundle.root)
    other = made.read(FILES[1]).replace(made.manifest.files[GRAPH].encode(), b"0" * 64)
    write_bundle(bundle.root, made.manifest, {FILES[1]: other})
    code, printed = build("--target", "onnx")
    assert code == 0 and "engineonnx-fp16:" in printed and "torebuildit:haad-edgebuild" in printed
    for options in (("--precision", "int8"), ("--float32", "/encoder/leave/"), ("--target", "openvino")):
        assert build(*options)[0] == 2, options
