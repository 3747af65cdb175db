"""Checks that every TensorRT version reads a graph correctly: its operations and pitfalls as data, and the checks.

Versions are compared by these lists alone. A parser refuses what it does not know, which is harmless. What it reads
differently it computes wrongly without a word, and that is what the checks guard against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.errors import BundleError

if TYPE_CHECKING:
    import onnx

OPSET = 17
ALLOWED = frozenset(
    """
    Add Cast Clip Concat Constant Div Exp Gather Gemm MatMul Max Min Mul ReduceMax ReduceSum Relu Reshape Shape Slice
    Sqrt Sub Transpose Unsqueeze
    """.split()
)
"""What TensorRT 8.5 to 11 and ONNX Runtime read alike at opset 17. ReduceMean and ReduceL2 are left out on purpose:
torch writes their axes as an input, which older parsers ignore. ReduceMax has its axes as an attribute."""
# Inputs that TensorRT's parser takes only from a constant (onnx-tensorrt, docs/operators.md), by operation.
_CONSTANT_INPUT = {"ReduceSum": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}
_READ = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}
"""Element types by their number in ONNX. TensorRT before 10 keeps 32 bits of int64: enough for shapes and indices."""


@dataclass(frozen=True, slots=True)
class Parser:
    """The ONNX parser of one TensorRT version: the highest opset it reads, and what it reads beyond ALLOWED."""

    version: str
    opset: int
    typed: bool
    """Whether a graph's own types can be made binding: float16 in the graph means float16 in the engine."""
    reads_axes: bool
    """Whether a reduction's axes may be an input (opset 18). Parsers that do not know them reduce over everything."""
    extra: frozenset[str] = frozenset()


_MORE = frozenset({"LayerNormalization"})
# For 10.13 and 11 all that is certain is that they read what 10.3 reads.
TENSORRT = (
    Parser("8.5", 17, typed=False, reads_axes=False),
    Parser("8.6", 17, typed=False, reads_axes=False, extra=_MORE),
    Parser("10.3", 20, typed=True, reads_axes=True, extra=_MORE),
    Parser("10.13", 20, typed=True, reads_axes=True, extra=_MORE),
    Parser("11", 20, typed=True, reads_axes=True, extra=_MORE),
)
TYPED = tuple(p for p in TENSORRT if p.typed)


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """The opset of each domain that a graph uses."""
    return {o.domain or "ai.onnx": o.version for o in model.opset_import}


def objections(model: onnx.ModelProto, parser: Parser) -> list[str]:
    """Why this parser would refuse the graph or misread it; empty if it reads it correctly."""
    out = []
    opsets = opsets_of(model)
    if set(opsets) - {"ai.onnx"}:
        out.append(f"operations of {', '.join(sorted(set(opsets) - {'ai.onnx'}))}")
    if opsets.get("ai.onnx", 0) > parser.opset:
        out.append(f"opset {opsets['ai.onnx']}, but it reads up to {parser.opset}")
    if strange := sorted({n.op_type for n in model.graph.node} - ALLOWED - parser.extra):
        out.append(f"{', '.join(strange)} not on its list")
    constant = {t.name for t in model.graph.initializer}
    constant |= {name for n in model.graph.node if n.op_type == "Constant" for name in n.output}
    for n in model.graph.node:
        if n.op_type.startswith("Reduce") and n.op_type != "ReduceSum" and len(n.input) > 1 and not parser.reads_axes:
            out.append(f"{n.op_type} '{n.name}' has its axes as an input, which it ignores")
        i = _CONSTANT_INPUT.get(n.op_type, len(n.input))
        if i < len(n.input) and n.input[i] and n.input[i] not in constant:
            out.append(f"{n.op_type} '{n.name}' has axes that are not constant")
    out += _type_objections(model, parser)
    return out


def _type_objections(model: onnx.ModelProto, parser: Parser) -> list[str]:
    used = {t.data_type for t in model.graph.initializer}
    used |= {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    used |= {a.t.data_type for n in model.graph.node for a in n.attribute if a.HasField("t")}
    used |= {a.i for n in model.graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    out = [f"tensors of ONNX's type {k}" for k in sorted(used - set(_READ))]
    if 10 in used and not parser.typed:
        out.append("float16 in the graph: this version takes the float32 graph, with precision as a flag")
    return out


def check_export(data: bytes) -> onnx.ModelProto:
    """Parse and check an export. Raises BundleError for one that a parser refuses, misreads, or compiles in pieces."""
    import onnx

    model = onnx.load_from_string(data)
    check_graph(model)
    check_whole(model)
    return model


def check_whole(model: onnx.ModelProto) -> None:
    """Check that TensorRT 8.6 can compile the graph as one, which a Clip prevents. Raises BundleError.

    With two Clips it compiled layer by layer: benchmarks/results/gpu-h200-2026-11-26.md.
    """
    if parted := [n.name for n in model.graph.node if n.op_type == "Clip"]:
        raise BundleError(
            f"the graph has a Clip, '{parted[0]}'",
            why="TensorRT 8.6 cannot compile across a Clip, and would split the graph there",
            fix="if an earlier haad-edge exported it, export it again: haad-edge build BUNDLE --target onnx",
        )


def check_graph(model: onnx.ModelProto, parsers: tuple[Parser, ...] = TENSORRT) -> None:
    """Raises BundleError for another opset, an operation not in `ALLOWED`, or anything that a parser objects to."""
    import onnx

    opsets = opsets_of(model)
    if opsets != {"ai.onnx": OPSET}:
        raise BundleError(f"the graph has opset {opsets}", why=f"the device reads opset {OPSET}")
    if strange := sorted({node.op_type for node in model.graph.node} - ALLOWED):
        raise BundleError(
            f"the graph uses {', '.join(strange)}",
            why="not every supported runtime reads these operations alike",
            fix="if an earlier haad-edge exported it, export it again: haad-edge build BUNDLE --target onnx",
        )
    for parser in parsers:
        if why := objections(model, parser):
            raise BundleError(f"TensorRT {parser.version} would not read the graph correctly", why="; ".join(why[:3]))
    onnx.checker.check_model(model, full_check=True)
