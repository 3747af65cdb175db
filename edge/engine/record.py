"""Reads `engine.json`, the record beside each built engine. Needs neither onnx nor torch.

BUNDLE/engines/<target>/engine.onnx or engine.plan    what was built
                        engine.json                   EngineRecord or PlanRecord
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from edge.bundle import GRAPH, Bundle
from edge.errors import BundleError, command

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


WORD = r"^(--(batch|support|workspace|float32|version-compatible)|[\w./:][\w./:-]*)$"
"""An option that says how an engine is built, or its value. Nothing else: words of a file are run as a command."""
Asked = list[Annotated[str, Field(pattern=WORD)]]
"""The options of haad-edge build, without --target and --precision, that were not at their defaults."""


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
    asked: Asked = []
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    reads: list[str] = Field(description="the TensorRT versions whose parsers read it, by their lists")
    gate: Gate
    runtime: str
    machine: str
    build_seconds: float
    latency_ms: dict[str, float] = Field(description="median by batch size, in this runtime on this machine")


def _ascending(axis: list[int]) -> list[int]:
    if axis != sorted(axis):
        raise ValueError("not in ascending order")
    return axis


Range = Annotated[
    list[Annotated[int, Field(ge=1, le=65536)]], Field(min_length=3, max_length=3), AfterValidator(_ascending)
]


class Profile(BaseModel):
    """Minimum, usual and maximum size of each free axis: windows in a batch, categories, windows of a category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Range
    categories: Range
    shots: Range


SAME = 1e-5
"""An embedding nearer than this to float32's was computed in float32: with the body in float16 the greatest
difference is 6e-4."""


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
        default=1,
        ge=1,
        le=1024,
        description="windows that are computed together: batches are padded to a multiple of it",
    )
    tensorrt: str
    version_compatible: bool
    cuda: str
    driver: str
    driver_release: str = ""
    gpu: str
    compute_capability: str
    machine: str
    workspace_mib: int = Field(ge=1, le=1 << 20)
    asked: Asked = []
    parity: dict[str, float] = Field(
        description="greatest differences to ONNX Runtime's float32, over the gate's windows"
    )
    gate: Gate
    build_seconds: float
    latency_ms: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        description="[p50, p99] by batch size, copies included"
    )

    @field_validator("together")
    @classmethod
    def _whole_groups(cls, together: int, info: ValidationInfo) -> int:
        if "profile" in info.data and any(n % together for n in info.data["profile"].batch):
            raise ValueError("the batch sizes are not multiples of it")
        return together


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
        field = f": field '{'.'.join(map(str, first['loc']))}'" if first["loc"] else ": not a record"
        why, fix = first["msg"], rebuild_command(bundle, target)
        if first["loc"] == ("format",):
            why, fix = "another version of haad-edge wrote it", f"upgrade haad-edge, or {fix}"
        raise BundleError(f"{bundle.root / name}{field}", why=why, fix=fix) from None


def rebuild_command(bundle: Bundle, target: str = "", asked: Sequence[str] = ()) -> str:
    """The command that builds an engine again: the float16 graph, or a plan for the machine on which it is run.

    `asked`: the options that it was built with.
    """
    if target.startswith(PLANS):
        return command(*plan_words(bundle, "fp32" if "-fp32" in target else "fp16", asked))
    return command("build", bundle.root, "--target", "onnx", "--precision", "fp16", *asked)


def plan_words(bundle: Bundle, precision: str, asked: Sequence[str]) -> list[str]:
    """The arguments of `haad-edge` that build a plan."""
    return ["build", str(bundle.root), "--target", "tensorrt", "--precision", precision, *asked]


def left_behind(bundle: Bundle) -> Iterator[tuple[str, str, str]]:
    """Yield each engine that does not belong to the bundle's graph, why, and the command that rebuilds it."""
    for name in engine_names(bundle):
        fix = rebuild_command(bundle, name)
        try:
            record = read_plan(bundle, name) if name.startswith(PLANS) else read_record(bundle, name)
            why, fix = stale(bundle, record), rebuild_command(bundle, name, record.asked)
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
