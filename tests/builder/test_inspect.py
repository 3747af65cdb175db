"""`haad-edge inspect` and `verify`: whole, damaged, altered and odd bundles, on a workstation and on a bare device."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import builder.verify
from builder.half import to_half
from builder.inspect import inspect
from builder.verify import verify
from edge.bundle import CALIBRATION, GRAPH, WEIGHTS, Bundle, open_bundle, write_bundle
from edge.cli import make_app
from edge.commands.doctor import Finding, show
from edge.engine.machine import this_machine
from edge.errors import BundleError
from tests.builder.test_engines import FILES, halved  # noqa: F401
from tests.builder.test_export import one_operation


@pytest.fixture
def copy(halved: Bundle, tmp_path: Path) -> Bundle:  # noqa: F811
    return open_bundle(shutil.copytree(halved.root, tmp_path / "copy"))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    out = {f.name: f for f in findings}
    assert len(out) == len(findings)
    return out


def broken(findings: list[Finding]) -> list[str]:
    return [f.name for f in findings if f.verdict == "broken"]


def altered(data: bytes, name: str) -> bytes:
    """The graph with the first number of one weight changed."""
    model = onnx.load_from_string(data)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    value = numpy_helper.to_array(tensor).copy()
    value.flat[0] += np.asarray(3, value.dtype)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    out: bytes = model.SerializeToString()
    return out


def test_a_whole_bundle_is_described(copy: Bundle) -> None:
    found = by_name(inspect(copy.root))
    assert broken(list(found.values())) == []
    assert copy.model in found["bundle"].detail and "16 frames over 1 s" in found["windows"].detail
    assert found["trained on"].detail == "set"
    assert all("sha256 matches" in found[f"file {name}"].detail for name in copy.manifest.files)
    nodes = onnx.load_from_string(copy.read(GRAPH)).graph.node
    assert f"MatMul×{sum(n.op_type == 'MatMul' for n in nodes)}" in found["operations"].detail
    assert "opset ai.onnx 17" in found["operations"].detail
    assert [f.verdict for n, f in found.items() if n.startswith("parser of")] == ["ok"] * 5
    assert "joints ['batch', 16, 15, 3]" in found["runs on ONNX Runtime"].detail
    tensorrt = found["runs on TensorRT"]
    assert (tensorrt.verdict, tensorrt.detail) == ("absent", this_machine().problem or "none was built")
    assert "TensorRT 10.3, 10.13, 11" in found["engine onnx-fp16: for"].detail


def test_a_look_at_the_graph_starts_no_threads(copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would bind them to cores, and log errors where it may not, as in a container with fewer."""
    import onnxruntime as ort

    threads: list[int] = []

    def session(data: bytes, options: ort.SessionOptions, **others: object) -> ort.InferenceSession:
        threads.append(options.intra_op_num_threads)
        return opened(data, options, **others)

    opened = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", session)
    inspect(copy.root)
    assert set(threads) == {1}


def test_an_engine_is_described_by_its_folder_or_a_file_of_it(copy: Bundle) -> None:
    folder = copy.root / "engines" / "onnx-fp16"
    found = inspect(folder)
    assert broken(found) == [] and all(f.name.startswith("engine onnx-fp16") for f in found)
    assert inspect(folder / "engine.json") == found
    stray = shutil.copytree(folder, copy.root / "engines" / "other")
    with pytest.raises(BundleError, match="not in its bundle's manifest"):
        inspect(stray)
    with pytest.raises(BundleError, match="not a bundle"):
        inspect(copy.root / "engines")


def test_what_was_not_built_is_said(trained: Bundle) -> None:
    found = by_name(inspect(trained.root))
    assert found["graph"].detail == "not built yet" and "haad-edge build" in found["graph"].fix
    assert broken(verify(trained)) == ["graph"]


def test_a_damaged_file_is_named_and_not_loaded(copy: Bundle) -> None:
    for name, said in ((GRAPH, "graph"), (FILES[0], "engine onnx-fp16"), (FILES[1], "engine onnx-fp16")):
        before = (copy.root / name).read_bytes()
        (copy.root / name).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        found = by_name(inspect(copy.root))
        assert found[f"file {name}"].verdict == "broken" and "sha256" in found[f"file {name}"].detail
        assert found[said].verdict != "ok"
        assert ("runs on ONNX Runtime" in found) == (name != GRAPH)
        checked = broken(verify(open_bundle(copy.root)))
        assert f"file {name}" in checked and said in checked
        (copy.root / name).write_bytes(before)
    (copy.root / WEIGHTS).unlink()
    assert broken(verify(copy)) == [f"file {WEIGHTS}"]


def test_files_that_the_manifest_does_not_list_are_said(copy: Bundle) -> None:
    assert "other files" not in by_name(inspect(copy.root))
    (copy.root / "engines" / "notes.txt").write_text("")
    found = by_name(inspect(copy.root))["other files"]
    assert found.verdict == "absent" and found.detail.endswith("never read: engines/notes.txt")


@pytest.mark.parametrize("wrong", ["narrow", "level", "nan", "gone"])
def test_a_calibration_that_cannot_be_used_is_broken_whatever_its_hash(copy: Bundle, wrong: str) -> None:
    arrays = copy.calibration()
    if wrong == "narrow":
        arrays["cohort"] = arrays["cohort"][:, :-3]
    elif wrong == "nan":
        arrays["level"] = arrays["level"] * np.nan
    else:
        del arrays["level" if wrong == "level" else "margin"]
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]
    assert broken(verify(write_bundle(copy.root, copy.manifest, {CALIBRATION: data.getvalue()}))) == ["calibration"]


def test_a_manifest_that_says_two_things_is_broken(copy: Bundle) -> None:
    m = copy.manifest.model_copy(update={"seconds": 2 * copy.manifest.seconds})
    found = by_name(verify(write_bundle(copy.root, m, {})))
    assert found["manifest"].verdict == "broken" and "seconds is 2" in found["manifest"].detail


def test_a_whole_bundle_passes_verify(copy: Bundle) -> None:
    found = by_name(verify(copy))
    assert broken(list(found.values())) == []
    assert {n: f.verdict for n, f in found.items() if n in ("runs here", "parity with torch", "engine onnx-fp16")} == {
        "runs here": "ok",
        "parity with torch": "ok",
        "engine onnx-fp16": "ok",
    }
    assert found["signature"].verdict == "absent"


def test_altered_weights_under_a_matching_hash_are_found_out(copy: Bundle) -> None:
    data = altered(copy.read(GRAPH), largest(copy))
    wrong = write_bundle(copy.root, copy.manifest, {GRAPH: data})
    found = by_name(verify(wrong))
    assert broken(list(found.values())) == ["parity with torch", "engine onnx-fp16"]
    assert "built from another graph" in found["engine onnx-fp16"].detail
    assert found["engine onnx-fp16"].fix == f"haad-edge build {copy.root} --target onnx --precision fp16"


def largest(bundle: Bundle) -> str:
    """The name of the largest of the matrices that the embedding is condensed with."""
    graph = onnx.load_from_string(bundle.read(GRAPH)).graph
    (last,) = (n for n in graph.node if n.name == "/encoder/leave/MatMul")
    return str(last.input[1])


def test_an_engine_that_is_another_graph_s_fails_the_gate_here(copy: Bundle) -> None:
    other = to_half(altered(copy.read(GRAPH), largest(copy)))
    wrong = write_bundle(copy.root, copy.manifest, {FILES[0]: other})
    assert "different hashes for engine.onnx" in by_name(verify(wrong))["engine onnx-fp16"].detail
    record = copy.read(FILES[1]).decode().replace(copy.manifest.files[FILES[0]], wrong.manifest.files[FILES[0]])
    resigned = write_bundle(copy.root, wrong.manifest, {FILES[1]: record.encode()})
    found = by_name(verify(resigned))
    assert broken(list(found.values())) == ["engine onnx-fp16"]
    assert (
        "float32 embedding falls to" in found["engine onnx-fp16"].detail
        or "distances differ" in found["engine onnx-fp16"].detail
    )


@pytest.mark.parametrize("rubbish", [b"", b"no graph at all", one_operation("Relu").SerializeToString()], ids=len)
def test_rubbish_under_a_matching_hash_is_no_traceback(copy: Bundle, rubbish: bytes) -> None:
    graph = copy.read(GRAPH)
    wrong = write_bundle(copy.root, copy.manifest, {GRAPH: rubbish})
    inspect(wrong.root)
    assert "runs here" in broken(verify(wrong))
    engine = write_bundle(copy.root, copy.manifest, {FILES[0]: rubbish})
    record = copy.read(FILES[1]).decode().replace(copy.manifest.files[FILES[0]], engine.manifest.files[FILES[0]])
    engine = write_bundle(copy.root, engine.manifest, {FILES[1]: record.encode(), GRAPH: graph})
    inspect(engine.root)
    assert "engine onnx-fp16" in broken(verify(engine))


def test_odd_values_in_the_manifest_are_no_traceback(copy: Bundle) -> None:
    odd = copy.manifest.model_copy(update={"training": {"sets": 3}, "parity": {"embedding": "small", "against": None}})
    write_bundle(copy.root, odd, {})
    assert by_name(inspect(copy.root))["trained on"].detail == "not recorded"


def test_a_graph_for_newer_parsers_only_is_said_to_be(copy: Bundle) -> None:
    model = onnx.load_from_string(copy.read(GRAPH))
    (node,) = (n for n in model.graph.node if n.op_type == "Exp")
    node.op_type = "Erf"
    wrong = write_bundle(copy.root, copy.manifest, {GRAPH: model.SerializeToString()})
    found = by_name(inspect(wrong.root))
    assert "Erf not on its list" in found["parser of TensorRT 8.5"].detail
    checked = broken(verify(wrong))
    assert [n for n in checked if n.startswith("parser")] == [
        f"parser of TensorRT {v}" for v in ("8.5", "8.6", "10.3", "10.13", "11")
    ]
    assert "runs here" in checked  # numpy's match says otherwise


def test_the_match_is_held_against_numpy_and_not_against_itself(copy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.verify, "match", lambda e, s, t: np.zeros(len(e)))
    assert broken(verify(copy)) == ["runs here"]


def test_a_device_without_torch_and_onnx_inspects_and_verifies(copy: Bundle) -> None:
    absent = ("torch", "onnx", "safetensors", "sklearn", "scipy", "tensorrt", "pycuda", "lightning_fabric")
    code = f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\nfrom edge.cli import main\nmain()"

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, env={"COLUMNS": "300"}
        )
        assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
        return done.stdout

    seen = run("inspect", str(copy.root))
    unchecked = "opset, operations and TensorRT versions: not checked, since the package onnx is missing"
    assert f"absent  operations  {unchecked}" in seen
    assert "ok      runs on ONNX Runtime" in seen and "engine onnx-fp16: gate" in seen and "parser of" not in seen
    checked = run("verify", str(copy.root))
    assert "ok      runs here" in checked and "not compared: no torch, onnx, safetensors here" in checked
    assert "belongs to the graph; not run through the gate: no onnx here" in checked


def test_the_commands_exit_codes(copy: Bundle) -> None:
    def run(*words: str) -> int:
        return CliRunner().invoke(make_app(), list(words)).exit_code

    assert run("inspect", str(copy.root)) == 0 and run("verify", str(copy.root)) == 0
    (copy.root / GRAPH).write_bytes(b"")
    assert run("inspect", str(copy.root)) == 0 and run("verify", str(copy.root)) == 1


def test_a_name_is_no_markup_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([Finding("file [/bold]x\x1b[2J", "broken", "a\x07b", "c")])
    printed = capsys.readouterr().out
    assert "[/bold]x" in printed and "\x1b[2J" not in printed and "\x07" not in printed
    assert not show([Finding("a", "ok", ""), Finding("b", "absent", "")])
