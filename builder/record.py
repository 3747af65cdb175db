"""`engine.json`: what stands beside everything that was built for one kind of runtime. Read without onnx or torch.

BUNDLE/engines/<target>/engine.onnx    the built graph
                        engine.json    EngineRecord
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle import Bundle
from edge.errors import BundleError

FOLDER, RECORD = "engines", "engine.json"


class Gate(BaseModel):
    """What the accuracy gate found, and what it asked for (`builder.gate.Verdict`)."""

    model_config = ConfigDict(extra="forbid")

    cosine: float
    distance: float
    auroc: float
    auroc_float32: float
    windows: int
    limits: dict[str, float]


class EngineRecord(BaseModel):
    """Hashes are sha256. What needs TensorRT and a GPU to be known is not there, rather than null."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    target: str
    precision: Literal["fp16"]
    file: str
    sha256: str
    graph: str = Field(description="hash of the float32 encoder.onnx that it was made of")
    model: str
    opset: int
    islands: list[str]
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    reads: list[str] = Field(description="the TensorRT versions whose parser takes it, by their lists")
    gate: Gate
    runtime: str
    machine: str
    build_seconds: float
    latency_ms: dict[str, float] = Field(description="median by batch size, in this runtime on this machine")


def engine_names(bundle: Bundle) -> list[str]:
    """The targets that a bundle holds an engine for."""
    ends = f"/{RECORD}"
    return sorted(
        n.removeprefix(f"{FOLDER}/").removesuffix(ends)
        for n in bundle.manifest.files
        if n.startswith(f"{FOLDER}/") and n.endswith(ends)
    )


def read_record(bundle: Bundle, target: str) -> EngineRecord:
    """engine.json of a target, after its hash matched. Raises BundleError, also for one of another graph."""
    name = f"{FOLDER}/{target}/{RECORD}"
    try:
        return EngineRecord.model_validate_json(bundle.read(name))
    except ValidationError as e:
        first = e.errors()[0]
        raise BundleError(
            f"{bundle.root / name}: field '{'.'.join(map(str, first['loc']))}'",
            why=first["msg"],
            fix=again(bundle),
        ) from None


def again(bundle: Bundle) -> str:
    """The command that builds the float16 graph anew."""
    return f"haad-edge build {bundle.root} --target onnx --precision fp16"
