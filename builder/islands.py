"""Which parts of the graph stay float32 in a float16 engine, by the beginnings of their operations' names."""

from __future__ import annotations

from collections.abc import Sequence

# Measured on the shipped model, as the share of the gate's nearest limit (builder/gate.py) that is used up: 0.20 with
# these islands. In float16, one at a time: the normalisation overflows on millimetres; the unit length takes 0.56, the
# match 0.50, and the DCT 0.23, for a hundredth of the work. All three together 0.76, near enough to fail elsewhere.
ISLANDS = (
    "/encoder/normalise/",
    "/encoder/MatMul",
    "/encoder/Mul",
    "/encoder/ReduceSum",
    "/encoder/Add",
    "/encoder/Sqrt",
    "/encoder/Div",
    "/match/",
)


def in_island(name: str, islands: Sequence[str]) -> bool:
    """Whether a node of this name stays float32."""
    return any(name.startswith(prefix) for prefix in islands)
