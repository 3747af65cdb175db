"""Reads `engine.json`, the record beside each built engine. Needs neither onnx nor torch.

BUNDLE/engines/<target>/engine.onnx or engine.plan    what was built
                        engine.json                   EngineRecord or PlanRecord
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle import GRAPH, Bundle
from edge.errors import BundleError

FOLDER, RECORD = "engines", "engine.json"
PLANS = "tensorrt-"
"""The prefix of every plan's target."""


class Gate(BaseModel):
    """What the accuracy gate found, and its limits (`builder.gate.Verdict`)."""

    model_config = ConfigDict(extra="forbid")

    cosine: float
    distance: float
    auroc: float
    auroc_float32: float
    windows: int
    limits: dict[str, float]


class EngineRecord(BaseModel):
    """The record of a typed float16 graph. Hashes are sha256. It has no fields for what only a GPU could tell."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    target: str
    precision: Literal["fp16"]
    file: str
    sha256: str
    graph: str = Field(description="hash of the float32 encoder.onnx that it was built from")
    model: str
    opset: int
    islands: list[str]
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    reads: list[str] = Field(description="the TensorRT versions whose parsers read it, by their lists")
    gate: Gate
    runtime: str
    machine: str
    build_seconds: float
    latency_ms: dict[str, float] = Field(description="median by batch size, in this runtime on this machine")


Range = Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(min_length=3, max_length=3)]


class Profile(BaseModel):
    """Minimum, usual and maximum size of each free axis: windows in a batch, categories, windows of a category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Range
    categories: Range
    shots: Range


SAME = 1e-5
"""An embedding nearer than this to float32's was computed in float32: with the body in float16 the greatest
difference is 6e-4."""


WORD = r"^(--(batch|support|workspace|float32|version-compatible)|[\w./:][\w./:-]*)$"
"""An option that says how a plan is built, or its value. Nothing else: these words from a file are run as a command."""


class PlanRecord(BaseModel):
    """The record of a TensorRT plan. `tensorrt`, `compute_capability`, `machine` and `driver` say where it runs."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    target: str
    precision: Literal["fp16", "fp32"]
    file: Literal["engine.plan"] = "engine.plan"
    sha256: str
    graph: str = Field(description="hash of the float32 encoder.onnx that it was built from")
    model: str
    opset: int
    islands: list[str]
    typed: bool = Field(description="strongly typed: precision is in the graph, not set by flags")
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    profile: Profile
    together: int = Field(
        default=1, ge=1, description="windows that are computed together: batches are padded to a multiple of it"
    )
    tensorrt: str
    version_compatible: bool
    cuda: str
    driver: str
    driver_release: str = ""
    gpu: str
    compute_capability: str
    machine: str
    workspace_mib: int
    asked: list[Annotated[str, Field(pattern=WORD)]] = Field(
        default=[],
        description="the options of haad-edge build, without --precision, that were not at their defaults",
    )
    parity: dict[str, float] = Field(
        description="greatest differences to ONNX Runtime's float32, over the gate's windows"
    )
    gate: Gate
    build_seconds: float
    latency_ms: dict[str, list[float]] = Field(description="[p50, p99] by batch size, copies included")


def actual_precision(record: PlanRecord) -> str:
    """fp16 or fp32: what a plan computes in. TensorRT 8 may be allowed to use float16 and not use it."""
    return "fp32" if record.parity.get("embedding", 1.0) < SAME else record.precision


def engine_names(bundle: Bundle) -> list[str]:
    """The targets of all engines in a bundle."""
    ends = f"/{RECORD}"
    return sorted(
        n.removeprefix(f"{FOLDER}/").removesuffix(ends)
        for n in bundle.manifest.files
        if n.startswith(f"{FOLDER}/") and n.endswith(ends)
    )


def plan_names(bundle: Bundle) -> list[str]:
    """The targets of all TensorRT plans in a bundle."""
    return [n for n in engine_names(bundle) if n.startswith(PLANS)]


def read_record(bundle: Bundle, target: str) -> EngineRecord:
    """Read engine.json of a float16 graph, if its hash matches. Raises BundleError."""
    return _read(bundle, target, EngineRecord)


def read_plan(bundle: Bundle, target: str) -> PlanRecord:
    """Read engine.json of a plan, if its hash matches. Raises BundleError."""
    return _read(bundle, target, PlanRecord)


Kind = TypeVar("Kind", EngineRecord, PlanRecord)


def _read(bundle: Bundle, target: str, kind: type[Kind]) -> Kind:
    name = f"{FOLDER}/{target}/{RECORD}"
    try:
        return kind.model_validate_json(bundle.read(name))
    except ValidationError as e:
        first = e.errors()[0]
        raise BundleError(
            f"{bundle.root / name}: field '{'.'.join(map(str, first['loc']))}'",
            why=first["msg"],
            fix=rebuild_command(bundle, target),
        ) from None


def rebuild_command(bundle: Bundle, target: str = "", asked: Sequence[str] = ()) -> str:
    """The command that builds an engine again: the float16 graph, or a plan for the machine on which it is run.

    `asked`: the options that a plan was built with.
    """
    if target.startswith(PLANS):
        precision = "fp32" if "-fp32" in target else "fp16"
        return " ".join(["haad-edge", *plan_words(bundle, precision, asked)])
    return f"haad-edge build {bundle.root} --target onnx --precision fp16"


def plan_words(bundle: Bundle, precision: str, asked: Sequence[str]) -> list[str]:
    """The arguments of `haad-edge` that build a plan."""
    return ["build", str(bundle.root), "--target", "tensorrt", "--precision", precision, *asked]


def left_behind(bundle: Bundle) -> Iterator[tuple[str, str, str]]:
    """Yield each engine that does not belong to the bundle's graph, why, and the command that rebuilds it."""
    for name in engine_names(bundle):
        fix = rebuild_command(bundle, name)
        try:
            record = read_plan(bundle, name) if name.startswith(PLANS) else read_record(bundle, name)
            why = stale(bundle, record)
            if isinstance(record, PlanRecord):
                fix = rebuild_command(bundle, name, record.asked)
        except BundleError as e:
            why = str(e)
        if why:
            yield name, why, fix


def stale(bundle: Bundle, record: EngineRecord | PlanRecord) -> str:
    """Why an engine does not belong to the bundle's graph, or ''."""
    if record.graph != bundle.manifest.files.get(GRAPH):
        return f"built from another graph ({record.graph[:12]}…) than the {GRAPH} beside it"
    if record.sha256 != bundle.manifest.files.get(f"{FOLDER}/{record.target}/{record.file}"):
        return f"{RECORD} and manifest.json have different hashes for {record.file}"
    return ""
