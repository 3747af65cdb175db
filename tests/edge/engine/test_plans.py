"""Which plan runs here, and why another does not, in one line."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge.bundle import BASE, GRAPH, Bundle, open_bundle, write_bundle
from edge.engine import open_engine
from edge.engine.machine import Gpu, Machine, ask_driver, driver_release, tensorrt_version, this_machine
from edge.engine.plans import choose, fitting, misfit, missing
from edge.engine.record import (
    FOLDER,
    RECORD,
    Gate,
    PlanRecord,
    Profile,
    actual_precision,
    left_behind,
    plan_names,
    read_plan,
    rebuild_command,
)
from edge.engine.tensorrt import chosen_plan, lean_library, open_tensorrt, room_of, without
from edge.errors import BundleError, EngineError, NoPlan

ORIN = Machine("aarch64", Gpu("Orin", "8.7", "12.6"), "10.3.0", True, "")
PLAN = b"a plan"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(BASE, tmp_path / "bundle"))


def record_of(bundle: Bundle, **changed: Any) -> PlanRecord:
    """What a build on an Orin with JetPack 6.1 would write."""
    m = bundle.manifest
    known: dict[str, Any] = {
        "target": "tensorrt-10.3.0-sm87-fp16",
        "precision": "fp16",
        "sha256": hashlib.sha256(PLAN).hexdigest(),
        "graph": m.files[GRAPH],
        "model": bundle.model,
        "opset": 17,
        "islands": ["/match/"],
        "typed": True,
        "inputs": {
            "joints": [-1, m.frames, 15, 3],
            "visible": [-1, m.frames, 15],
            "support": [-1, -1, m.embedding],
            "support_mask": [-1, -1],
        },
        "outputs": {"embedding": [-1, m.embedding], "distance": [-1, -1]},
        "profile": Profile(batch=[1, 16, 64], categories=[1, 4, 32], shots=[1, 8, 64]),
        "tensorrt": "10.3.0",
        "version_compatible": False,
        "cuda": "12.6",
        "driver": "12.6",
        "gpu": "Orin",
        "compute_capability": "8.7",
        "machine": "aarch64",
        "workspace_mib": 1024,
        "parity": {"embedding": 1e-3, "distance": 1e-3},
        "gate": Gate(cosine=0.9999, distance=1e-3, auroc=0, auroc_float32=0.9, windows=100, limits={}),
        "build_seconds": 40.0,
        "latency_ms": {"1": [0.4, 0.5], "64": [2.0, 2.5]},
    }
    return PlanRecord(**{**known, **changed})


def put(bundle: Bundle, **changed: Any) -> Bundle:
    record = record_of(bundle, **changed)
    root = f"{FOLDER}/{record.target}"
    text = record.model_dump_json().encode()
    return write_bundle(bundle.root, bundle.manifest, {f"{root}/{record.file}": PLAN, f"{root}/{RECORD}": text})


def test_the_machine_it_was_built_on_runs_it(bundle: Bundle) -> None:
    assert misfit(put(bundle), record_of(bundle), ORIN) == ""
    record, plan = choose(put(bundle), ORIN)
    assert (record.target, plan) == ("tensorrt-10.3.0-sm87-fp16", PLAN)


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (replace(ORIN, gpu=Gpu("L4", "8.9", "12.6")), r"capability 8.7 \(Orin\), but this GPU has 8.9 \(L4\)"),
        (
            replace(ORIN, tensorrt="10.13.3.9"),
            "built by TensorRT 10.3.0, but here is 10.13.3.9: a plan runs only in its own",
        ),
        (replace(ORIN, tensorrt="8.6.2"), "built by TensorRT 10.3.0, but here is 8.6.2"),
        (replace(ORIN, platform="x86_64"), "built on aarch64, but this is x86_64"),
        (replace(ORIN, gpu=Gpu("Orin", "8.7", "11.4")), "CUDA 12.6, but the driver here supports only up to 11.4"),
        (replace(ORIN, gpu=None, problem="no NVIDIA driver"), "no NVIDIA driver"),
        (replace(ORIN, tensorrt=None, problem="TensorRT is not installed"), "TensorRT is not installed"),
    ],
)
def test_another_machine_is_told_why_not_and_what_to_run(bundle: Bundle, here: Machine, said: str) -> None:
    with pytest.raises(EngineError, match=said) as e:
        choose(put(bundle), here)
    assert "\n" not in str(e.value) and not e.value.lost
    if here.problem:
        assert "engine: onnx" in e.value.fix
    else:
        assert e.value.fix.startswith(f"haad-edge build {bundle.root} --target tensorrt --precision fp16")


WISH = ["--batch", "1:64:256", "--float32", "/encoder/blocks.0/", "--version-compatible"]


def test_a_plan_is_built_anew_with_the_options_of_the_one_that_comes_nearest(bundle: Bundle) -> None:
    for other in (
        {"target": "tensorrt-10.2.0-sm87-fp32", "precision": "fp32", "asked": ["--batch", "1:4:8"]},
        {
            "target": "tensorrt-10.3.0-sm100-fp16",
            "compute_capability": "10.0",
            "gpu": "B200",
            "asked": ["--batch", "9"],
        },
        {"tensorrt": "10.3.0", "asked": WISH},
    ):
        bundle = put(bundle, **other)
    updated = replace(ORIN, tensorrt="10.7.0")
    words = f"--target tensorrt --precision fp16 {' '.join(WISH)}"
    assert missing(bundle, updated) == ["build", str(bundle.root), *words.split()]
    with pytest.raises(NoPlan) as e:
        choose(bundle, updated)
    assert e.value.fix == f"haad-edge build {bundle.root} {words}, or run with --build-missing"
    other = replace(updated, gpu=Gpu("L4", "8.9", "12.6"))
    assert missing(bundle, other)[-1] == "9"  # of another kind of GPU, float16, the first by name
    assert rebuild_command(bundle, "tensorrt-10.3.0-sm87-fp16", without(WISH, "--batch")).endswith(
        "fp16 " + " ".join(WISH[2:])
    )


def test_what_a_new_graph_leaves_behind_is_made_anew_with_its_options(bundle: Bundle) -> None:
    ((name, why, fix),) = left_behind(put(bundle, graph="0" * 64, asked=WISH))
    assert name == "tensorrt-10.3.0-sm87-fp16" and "another graph" in why
    assert fix == f"haad-edge build {bundle.root} --target tensorrt --precision fp16 {' '.join(WISH)}"


@pytest.mark.parametrize("word", ["; reboot", "$(x)", "a b", "", "`x`"])
def test_options_that_a_shell_would_read_otherwise_are_no_options(bundle: Bundle, word: str) -> None:
    """They are printed for somebody to copy."""
    with pytest.raises(ValidationError):
        record_of(bundle, asked=["--batch", word])


@pytest.mark.parametrize("word", ["--timing-cache", "--target", "--help", "-x", "--"])
def test_a_record_asks_for_nothing_but_what_a_plan_is(bundle: Bundle, word: str) -> None:
    """`--build-missing` runs its words: a bundle must not name a file to be written."""
    with pytest.raises(ValidationError):
        record_of(bundle, asked=["--batch", "1:4:8", word])


def test_a_plan_of_another_graph_or_with_another_hash_is_not_taken(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="built from another graph"):
        choose(put(bundle, graph="0" * 64), ORIN)
    with pytest.raises(EngineError, match=r"have different hashes for engine\.plan"):
        choose(put(bundle, sha256="0" * 64), ORIN)


def test_a_record_that_is_none_is_named_by_its_field(bundle: Bundle) -> None:
    built = put(bundle)
    name = f"{FOLDER}/tensorrt-10.3.0-sm87-fp16/{RECORD}"
    text = built.read(name).replace(b'"8.7"', b"87")
    wrong = write_bundle(built.root, built.manifest, {name: text})
    with pytest.raises(BundleError, match=r"field 'compute_capability'.*--target tensorrt --precision fp16"):
        read_plan(wrong, "tensorrt-10.3.0-sm87-fp16")
    assert "compute_capability" in fitting(wrong, ORIN)[1]["tensorrt-10.3.0-sm87-fp16"]
    for field, value in (("batch", [1, 2]), ("batch", [0, 1, 2]), ("batch", [2, 1, 3]), ("shots", [1, 2, "x"])):
        with pytest.raises(ValueError, match=field):
            Profile(**{"batch": [1, 1, 1], "categories": [1, 1, 1], "shots": [1, 1, 1], field: value})


def test_without_a_plan_the_command_that_builds_one_is_named(bundle: Bundle) -> None:
    assert plan_names(bundle) == []
    with pytest.raises(
        EngineError, match=r"no plan for this machine: none was built → haad-edge build .*--build-missing"
    ):
        choose(bundle, ORIN)


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("8.6.1", "10.3.0", True), ("10.3.0", "10.13.3.9", True), ("10.3.0", "11.4.0", True),
        ("10.3.0", "10.3.0", True), ("10.13.0", "10.3.0", False), ("8.6.1", "11.4.0", False),
        ("11.0.0", "10.3.0", False), ("10.3.0", "12.0", False),
    ],
)  # fmt: skip
def test_version_compatible_plans_reach_later_versions(bundle: Bundle, built: str, here: str, runs: bool) -> None:
    b = put(bundle, tensorrt=built, version_compatible=True)
    record = read_plan(b, "tensorrt-10.3.0-sm87-fp16")
    assert (misfit(b, record, replace(ORIN, tensorrt=here)) == "") == runs


def test_the_best_of_several_is_taken(bundle: Bundle) -> None:
    for target, changed in {
        "tensorrt-10.3.0-sm87-fp32": {"precision": "fp32"},
        "tensorrt-10.3.0-sm87-fp16": {},
        "tensorrt-8.6.1-sm87-fp16": {"tensorrt": "8.6.1", "version_compatible": True},
        "tensorrt-10.3.0-sm89-fp16": {"compute_capability": "8.9"},
    }.items():
        bundle = put(bundle, target=target, **changed)
    fit, unfit = fitting(bundle, ORIN)
    assert [r.target for r in fit] == [
        "tensorrt-10.3.0-sm87-fp16",
        "tensorrt-10.3.0-sm87-fp32",
        "tensorrt-8.6.1-sm87-fp16",
    ]
    assert list(unfit) == ["tensorrt-10.3.0-sm89-fp16"]


def test_its_room_is_its_profile(bundle: Bundle) -> None:
    room = room_of(record_of(bundle))
    assert (room.batch, room.categories, room.shots) == ((1, 64), (1, 32), (1, 64))


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Mon Feb 26 21:10:14 UTC 2024", "535.161.08"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder)",
            "550.54.15",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.3  Release Build  (buildbrain@mobile)",
            "540.3",
        ),
        ("something else 1.2.3", ""),
    ],
)
def test_the_driver_s_release_is_read(tmp_path: Path, said: str, release: str) -> None:
    (tmp_path / "version").write_text(f"{said}\nGCC version:  gcc version 11.4.0\n")
    assert driver_release(tmp_path / "version") == release and driver_release(tmp_path / "none") == ""


def test_the_driver_is_asked_without_harm_where_there_is_none() -> None:
    assert ask_driver("libno-such-driver.so.1") == "no NVIDIA driver: libno-such-driver.so.1 not found"
    assert ask_driver("libc.so.6") == "no NVIDIA driver: libc.so.6 not found"  # a library, and no driver


def test_a_package_that_cannot_be_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "tensorrt", raising=False)
    version, why = tensorrt_version()
    assert version is None and "libnvinfer.so.10" in why and "cannot be loaded" in why


def test_a_pycuda_that_cannot_be_loaded_is_found_before_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that was compiled for another CUDA: `doctor` and `build` say so, and not that all is well."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text(
        "raise ImportError('libcurand.so.10: cannot open shared object file')"
    )
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.3.0'")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("pycuda", "pycuda.driver", "tensorrt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("edge.engine.machine.ask_driver", lambda: ORIN.gpu)
    here = this_machine.__wrapped__()
    assert (here.gpu, here.tensorrt, here.pycuda) == (ORIN.gpu, "10.3.0", False)
    assert here.problem == "pycuda cannot be loaded: libcurand.so.10: cannot open shared object file"


def test_a_machine_that_cannot_is_told_before_anything_of_a_plan_is_touched(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = put(bundle)
    (built.root / FOLDER / "tensorrt-10.3.0-sm87-fp16" / "engine.plan").write_bytes(b"damaged")
    monkeypatch.setattr(
        "edge.engine.tensorrt.this_machine", lambda: replace(ORIN, gpu=None, problem="no NVIDIA driver")
    )
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        open_tensorrt(built, max_batch=4)
    monkeypatch.setattr("edge.engine.tensorrt.this_machine", lambda: ORIN)
    with pytest.raises(NoPlan, match="sha256"):  # before a device is opened, and before TensorRT is imported
        open_engine(built, "tensorrt")


def test_a_plan_that_a_build_replaces_meanwhile_is_the_new_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.engine.tensorrt.this_machine", lambda: ORIN)
    before = put(bundle, workspace_mib=1)
    put(before, workspace_mib=2)
    assert chosen_plan(before)[0].workspace_mib == 2  # its record has another hash by now
    record = record_of(bundle)
    newest = open_bundle(bundle.root)
    new = {f"{FOLDER}/{record.target}/engine.plan": b"another plan"}
    data = record_of(bundle, sha256=hashlib.sha256(b"another plan").hexdigest()).model_dump_json().encode()
    write_bundle(bundle.root, newest.manifest, {**new, f"{FOLDER}/{record.target}/{RECORD}": data})
    assert chosen_plan(newest)[1] == b"another plan"


def test_the_plan_of_a_model_that_was_replaced_meanwhile_is_not_taken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.engine.tensorrt.this_machine", lambda: ORIN)
    other = write_bundle(bundle.root, bundle.manifest, {GRAPH: b"another graph"})
    put(other)
    with pytest.raises(NoPlan, match="none was built"):
        chosen_plan(bundle)


def test_a_lean_runtime_that_is_missing_is_named_with_its_version() -> None:
    """A plan that is built here needs none, so that `--build-missing` builds one."""
    with pytest.raises(NoPlan, match=r"needs libnvinfer_lean.so.8.*pip install tensorrt-lean==8.6.1"):
        lean_library("8.6.1", "bundle")


@pytest.mark.parametrize(
    ("precision", "embedding", "found"), [("fp16", 6e-4, "fp16"), ("fp16", 2e-7, "fp32"), ("fp32", 2e-7, "fp32")]
)
def test_a_plan_is_named_by_what_it_computes_in(bundle: Bundle, precision: str, embedding: float, found: str) -> None:
    assert actual_precision(record_of(bundle, precision=precision, parity={"embedding": embedding})) == found
    assert actual_precision(record_of(bundle, precision=precision, parity={})) == precision  # not judged yet
