"""Which parts of the graph stay float32 in a float16 engine, by the beginnings of their operations' names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# Measured on the shipped model, as the share of the gate's nearest limit (builder/gate.py) that is used up: 0.15 with
# these islands. In float16, one at a time: the normalisation overflows on millimetres, the unit length divides by 0
# where nobody is seen, the match takes 0.53; the DCT takes no more, but is a hundredth of the work and stands between.
ISLANDS = ("/encoder/normalise/", "/encoder/dct/", "/encoder/unit/", "/match/")


@dataclass(frozen=True, slots=True)
class Layer:
    """What an engine's builder makes of an operation: the float tensors that it reads and makes, by name."""

    name: str
    reads: Sequence[str]
    makes: Sequence[str]
    moves: bool = False
    constant: bool = False


def in_island(name: str, islands: Sequence[str]) -> bool:
    """Whether a node of this name stays float32."""
    return any(name.startswith(prefix) for prefix in islands)


def types(layers: Iterable[Layer], inputs: Iterable[str], islands: Sequence[str], ask: bool) -> Iterator[str]:
    """float32, float16 or '' (nothing is asked for), layer by layer, where precision is asked for by layer.

    A layer that only moves what an island or the input made belongs to it, and so does one that the parser adds without
    a name of the graph's (broadcasts). What moves float16 is left alone: TensorRT 8.6, which takes the whole graph as
    one, gives it a type of its own choice, and refuses all if another was asked for (seen on an H200).
    """
    exact = set(inputs)
    for layer in layers:
        nameless = not layer.name.startswith("/")
        if in_island(layer.name, islands) or (
            (layer.moves or nameless) and layer.reads and exact.issuperset(layer.reads)
        ):
            exact.update(layer.makes)
            yield "float32"
        else:
            yield "" if not ask or nameless or layer.moves or layer.constant else "float16"
