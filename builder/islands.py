"""Which parts of the graph stay float32 in a float16 engine, by the beginnings of their operations' names."""

from __future__ import annotations

from collections.abc import Sequence

# Measured on the shipped model, as the share of the gate's nearest limit (builder/gate.py) that is used up: 0.18 with
# these islands. In float16, one at a time: the normalisation overflows on millimetres, the unit length divides by 0
# where nobody is seen, the match takes 0.49; the DCT takes no more, but is a hundredth of the work and stands between.
ISLANDS = ("/encoder/normalise/", "/encoder/dct/", "/encoder/unit/", "/match/")


def in_island(name: str, islands: Sequence[str]) -> bool:
    """Whether a node of this name stays float32."""
    return any(name.startswith(prefix) for prefix in islands)
