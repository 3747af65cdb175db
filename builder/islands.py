"""Which parts of the graph stay float32 in a float16 engine, by the beginnings of their operations' names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# Measured on the shipped model, as the share of the gate's nearest limit (builder/gate.py) that is used up: 0.15 with
# these islands. In float16, one at a time: the normalisation overflows on millimetres, the unit length divides by 0
# where nobody is seen, the match takes 0.47; the DCT (0.18) and the turn (0.14) are little and stand between.
ISLANDS = ("/encoder/normalise/", "/encoder/dct/", "/encoder/turned/", "/encoder/unit/", "/match/")


Does = Literal["computes", "moves", "reshapes", "is constant"]
"""To move is to pick or join numbers; to reshape is to give them other axes, or the same in another order."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What an engine's builder makes of an operation: the float tensors that it reads and makes, by name."""

    name: str
    reads: Sequence[str]
    makes: Sequence[str]
    does: Does = "computes"


def in_island(name: str, islands: Sequence[str]) -> bool:
    """Whether a node of this name stays float32."""
    return any(name.startswith(prefix) for prefix in islands)


def types(layers: Iterable[Layer], inputs: Iterable[str], islands: Sequence[str], ask: bool) -> Iterator[str]:
    """float32, float16 or '' (nothing is asked for), layer by layer, where precision is asked for by layer.

    A layer that only moves what an island or the input made belongs to it, and so does one that the parser adds without
    a name of the graph's (broadcasts). Unless float16 is asked for, what is reshaped is held as well. TensorRT 8.6,
    which takes the whole graph as one, then has float32 throughout as its only way: it gives what is reshaped the type
    of the whole (seen on an H200), but for the inputs.
    """
    given, exact = set(inputs), set(inputs)
    for layer in layers:
        reads, nameless = set(layer.reads), not layer.name.startswith("/")
        follows = bool(reads) and reads <= exact and (nameless or layer.does != "computes")
        held = in_island(layer.name, islands) or follows
        if layer.does == "reshapes" and ask:
            held = bool(reads) and reads <= given
        if held:
            exact.update(layer.makes)
            if layer.does == "is constant" or (layer.does == "reshapes" and reads <= given):
                given.update(layer.makes)
            yield "float32"
        else:
            yield "float16" if ask and layer.does == "computes" and not nameless else ""
