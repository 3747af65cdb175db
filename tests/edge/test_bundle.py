"""Bundles: nothing altered, missing or outside is ever handed out, and writing leaves whole files only."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.bundle import (
    CALIBRATION,
    GRAPH,
    WEIGHTS,
    Bundle,
    Manifest,
    add_to_bundle,
    locked,
    open_bundle,
    replace_file,
    write_bundle,
)
from edge.errors import BundleError

DEEP = "engines/server/engine.plan"


def calibration() -> bytes:
    with io.BytesIO() as f:
        np.savez(f, cohort=np.eye(3, dtype=np.float32), quantile=np.float32(0.5))
        return f.getvalue()


FILES = {GRAPH: b"graph" * 10, WEIGHTS: b"weights", CALIBRATION: calibration(), DEEP: bytes(range(256))}
MANIFEST = Manifest(
    name="tiny", frames=16, seconds=2.0, embedding=8, temperature=0.1, encoder=hashlib.sha256(b"weights").hexdigest()
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny", MANIFEST, FILES).root


def edit(root: Path, **changes: Any) -> None:
    """Change the manifest on disk by hand; None leaves a field out."""
    path = root / "manifest.json"
    raw = {k: v for k, v in {**json.loads(path.read_text()), **changes}.items() if v is not None}
    path.write_text(json.dumps(raw))


def hashes(root: Path) -> Any:
    return json.loads((root / "manifest.json").read_text())["files"]


def content(root: Path) -> dict[str, bytes]:
    """Every file below, hidden and temporary ones too."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_written_bundle_opens_and_reads_back(root: Path) -> None:
    bundle = open_bundle(root)
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert bundle.manifest == MANIFEST.model_copy(update={"files": hashes(root)})
    assert bundle.model == "tiny-" + hashlib.sha256(b"weights").hexdigest()[:12]
    arrays = bundle.calibration()
    assert set(arrays) == {"cohort", "quantile"} and (arrays["cohort"] == np.eye(3)).all()


def test_the_manifest_holds_the_sha256_of_every_file_and_nothing_else_is_there(root: Path) -> None:
    assert hashes(root) == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert set(content(root)) == {"manifest.json", *FILES}


def test_the_base_bundle_is_whole() -> None:
    bundle = open_bundle()
    for name in (GRAPH, WEIGHTS, CALIBRATION):
        assert name in bundle.manifest.files
    for name in bundle.manifest.files:
        assert bundle.read(name)
    assert bundle.manifest.encoder == bundle.manifest.files[WEIGHTS]
    assert bundle.manifest.layout == "core15" and "cohort" in bundle.calibration()


@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*FILES]), st.integers(0, 10**6), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_refused_before_use(root: Path, name: str, at: int, flip: int) -> None:
    good = FILES[name]
    bad = bytearray(good)
    bad[at % len(bad)] ^= flip
    (root / name).write_bytes(bad)
    try:
        with pytest.raises(BundleError, match="sha256") as e:
            open_bundle(root).read(name)
        assert str(root / name) in str(e.value) and "so it was not loaded" in str(e.value)
        if name == CALIBRATION:
            with pytest.raises(BundleError, match="sha256"):
                open_bundle(root).calibration()
    finally:
        (root / name).write_bytes(good)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_a_cut_or_grown_file_is_refused(root: Path, change: Any) -> None:
    (root / WEIGHTS).write_bytes(change(FILES[WEIGHTS]))
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(root).read(WEIGHTS)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(BundleError, match="cannot be read") as e:
        open_bundle(root).read(name)
    assert str(root / name) in str(e.value) and "copy the whole bundle again" in str(e.value)


def test_a_file_that_the_manifest_does_not_list_is_not_handed_out(root: Path) -> None:
    (root / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"no 'extra\.bin' in this bundle"):
        open_bundle(root).read("extra.bin")


def test_a_bundle_without_a_graph_says_how_to_build_it(root: Path) -> None:
    edit(root, files={k: v for k, v in hashes(root).items() if k != GRAPH})
    with pytest.raises(BundleError, match=r"no 'encoder\.onnx'.*haad-edge build"):
        open_bundle(root).read(GRAPH)


@pytest.mark.parametrize("name", ["encoder.onnx", "manifest.json"])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_read(root: Path, name: str) -> None:
    """A pipe would never end, and neither would /dev/zero."""
    bundle, path = open_bundle(root), root / name
    for make in (os.mkfifo, lambda p: p.symlink_to("/dev/zero")):
        path.unlink()
        make(path)
        with pytest.raises(BundleError, match="it is not a file"):
            bundle.read(name) if name in bundle.manifest.files else open_bundle(root)


def test_a_name_that_no_file_can_have_is_refused(root: Path) -> None:
    for name in ("a\0b", "\ud800", "", "x" * 300, "engines"):
        edit(root, files={name: "0" * 64})
        with pytest.raises(BundleError):
            open_bundle(root).read(name)


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "engines/../../secret"])
def test_a_name_that_leads_out_of_the_bundle_is_refused_on_opening(root: Path, name: str) -> None:
    (root.parent / "secret").write_bytes(b"s")
    edit(root, files={name: hashlib.sha256(b"s").hexdigest()})
    with pytest.raises(BundleError, match="points outside the bundle"):
        open_bundle(root)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    for root, why in ((tmp_path, r"manifest\.json"), (tmp_path / "absent", "no such folder")):
        with pytest.raises(BundleError, match=f"not a bundle.*{why}") as e:
            open_bundle(root)
        assert str(root) in str(e.value)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"name: tiny", b"[" * 100_000])
def test_a_manifest_that_is_not_json_is_refused(root: Path, text: bytes) -> None:
    (root / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"manifest\.json: not JSON"):
        open_bundle(root)


@pytest.mark.parametrize("value", [None, 0, 2, "1"])
def test_another_format_is_refused_with_the_one_that_is_read(root: Path, value: Any) -> None:
    edit(root, format=value)
    with pytest.raises(BundleError, match=r"format.*reads 1.*upgrade"):
        open_bundle(root)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None), ("name", 5), ("frames", 4), ("frames", "many"), ("seconds", 0), ("seconds", float("nan")),
        ("embedding", 0), ("temperature", 0), ("temperature", -0.1), ("encoder", None), ("files", ["encoder.onnx"]),
        ("surprise", 1), ("layout", "coco17"), ("temperature", 9e-4), ("temperature", 11),
        ("temperature", float("inf")), ("name", ""), ("name", "a\nb"), ("name", "x" * 65),
        ("opset", 16), ("opset", "new"),
    ],
)  # fmt: skip
def test_a_manifest_with_a_wrong_field_is_refused_by_its_name(root: Path, field: str, value: Any) -> None:
    edit(root, **{field: value})
    with pytest.raises(BundleError, match=f"field '{field}'") as e:
        open_bundle(root)
    assert str(root / "manifest.json") in str(e.value)


@pytest.mark.parametrize("text", ["[]", "null", "5", '"tiny"'])
def test_a_manifest_that_is_no_map_is_refused(root: Path, text: str) -> None:
    (root / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(root)


@pytest.mark.parametrize("data", [b"", b"junk", calibration()[:-40]])
def test_a_calibration_that_was_written_wrong_is_a_bundle_error_too(tmp_path: Path, data: bytes) -> None:
    bundle = write_bundle(tmp_path / "b", MANIFEST, {CALIBRATION: data})
    with pytest.raises(BundleError, match=r"calibration\.npz: not a calibration"):
        bundle.calibration()


def test_writing_more_keeps_what_was_there(root: Path) -> None:
    bundle = open_bundle(root)
    write_bundle(root, bundle.manifest.model_copy(update={"opset": 17}), {GRAPH: b"new graph"})
    again = open_bundle(root)
    assert again.manifest.opset == 17 and again.read(GRAPH) == b"new graph"
    assert {name: again.read(name) for name in (WEIGHTS, CALIBRATION, DEEP)} == {
        name: FILES[name] for name in (WEIGHTS, CALIBRATION, DEEP)
    }
    assert set(content(root)) == {"manifest.json", *FILES}
    with pytest.raises(BundleError, match="sha256"):  # who opened it before does not get the new file as the old one
        bundle.read(GRAPH)


def test_a_write_that_breaks_off_leaves_each_file_whole_and_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at the moment when the second file should take its place."""
    before, moved = content(root), []
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if moved:
            raise OSError(28, "No space left on device")
        moved.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="No space"):
        write_bundle(root, open_bundle(root).manifest, {GRAPH: b"new graph", WEIGHTS: b"new weights"})
    assert content(root) == {**before, GRAPH: b"new graph"}
    bundle = open_bundle(root)
    assert bundle.read(WEIGHTS) == b"weights"
    with pytest.raises(BundleError, match="sha256"):
        bundle.read(GRAPH)


def test_replace_changes_a_file_in_one_step(tmp_path: Path) -> None:
    """Somebody who holds the old file open still reads the old content: it was not written over."""
    path = tmp_path / "deep" / "a"
    replace_file(path, b"old")
    with path.open("rb") as held:
        replace_file(path, b"newer")
        assert held.read() == b"old" and path.read_bytes() == b"newer"
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def test_a_bundle_is_a_value(root: Path) -> None:
    bundle = open_bundle(str(root))
    assert isinstance(bundle, Bundle)
    with pytest.raises(AttributeError):
        bundle.root = root  # type: ignore[misc]


def test_what_another_process_added_meanwhile_stays(root: Path) -> None:
    """A plan takes minutes to build: the manifest of when it began is not the one of now."""
    early, other = open_bundle(root), open_bundle(root)
    add_to_bundle(other, {"engines/a/engine.plan": b"a"}, made_of=GRAPH)
    found = add_to_bundle(early, {"engines/b/engine.plan": b"b"}, made_of=GRAPH, name="told")
    for bundle in (found, open_bundle(root)):
        assert [bundle.read(f"engines/{x}/engine.plan") for x in "ab"] == [
            b"a",
            b"b",
        ] and bundle.manifest.name == "told"
        assert {name: bundle.read(name) for name in FILES} == FILES


def test_what_is_added_waits_for_who_has_the_bundle_and_loses_nothing_of_theirs(root: Path) -> None:
    early = open_bundle(root)
    added = {"engines/b/engine.plan": b"b"}
    other = threading.Thread(target=lambda: add_to_bundle(early, added, made_of=GRAPH))
    with locked(root):
        other.start()
        other.join(0.5)
        assert other.is_alive()
        write_bundle(root, open_bundle(root).manifest, {"engines/a/engine.plan": b"a"})
    other.join(30)
    assert [open_bundle(root).read(f"engines/{x}/engine.plan") for x in "ab"] == [b"a", b"b"]


def test_what_a_killed_builder_left_half_written_goes_with_the_next(root: Path) -> None:
    half = [root / "engines" / "a" / ".engine.plan.77.tmp", root / ".manifest.json.8.tmp"]
    other = root / "engines" / "a" / ".else.tmp"
    half[0].parent.mkdir(parents=True)
    for path in (*half, other):
        path.write_bytes(b"half")
    add_to_bundle(open_bundle(root), {"engines/a/engine.plan": b"a"}, made_of=GRAPH)
    assert not any(p.exists() for p in half) and other.exists()
    assert open_bundle(root).read("engines/a/engine.plan") == b"a"


@pytest.mark.parametrize("what", ["the graph", "the model"])
def test_what_was_made_of_another_graph_is_not_added(root: Path, what: str) -> None:
    early = open_bundle(root)
    if what == "the graph":
        write_bundle(root, early.manifest, {GRAPH: b"another"})
    else:
        m = early.manifest.model_copy(update={"encoder": hashlib.sha256(b"others").hexdigest()})
        write_bundle(root, m, {WEIGHTS: b"others"})
    before = content(root)
    with pytest.raises(BundleError, match=r"changed while .*→ run this command again") as e:
        add_to_bundle(early, {"engines/b/engine.plan": b"b"}, made_of=GRAPH)
    assert str(root) in str(e.value) and content(root) == before


def test_one_process_at_a_time_has_a_bundle_to_itself(root: Path) -> None:
    wants = "from pathlib import Path; from edge.bundle import locked; print('asks', flush=True)\n" + (
        "with locked(Path({!r})): print('has it', flush=True)"
    )
    with locked(root):
        other = subprocess.Popen([sys.executable, "-c", wants.format(str(root))], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=30)[0] == "has it\n"
    with locked(root / "not there"):  # what is missing is somebody else's to say
        pass
