"""Decides which parts of the graph stay float32 in a float16 engine ("islands"), by prefixes of operation names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# Measured on the shipped model, as the share of the gate's nearest limit (builder/gate.py) that is used up: 0.15 with
# these islands. With one of them at a time in float16: the normalisation overflows on millimetres, the unit length
# divides by 0 where nobody is seen, and the match uses 0.47. The DCT (0.18) and the turn (0.14) matter little; they
# stay float32 because they lie between islands.
ISLANDS = ("/encoder/normalise/", "/encoder/dct/", "/encoder/turned/", "/encoder/unit/", "/match/")


Does = Literal["computes", "moves", "reshapes", "is constant"]
"""What a layer does: "moves" picks or joins numbers; "reshapes" changes their axes or the order of the axes."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that TensorRT made of an operation, with the names of the float tensors that it reads and makes."""

    name: str
    reads: Sequence[str]
    makes: Sequence[str]
    does: Does = "computes"


def in_island(name: str, islands: Sequence[str]) -> bool:
    """Whether a node of this name stays float32."""
    return any(name.startswith(prefix) for prefix in islands)


def layer_types(
    layers: Iterable[Layer], inputs: Iterable[str], islands: Sequence[str], request_half: bool
) -> Iterator[str]:
    """Yield the type to request for each layer: float32, float16, or '' for no request. For engines typed by layer.

    A layer that only moves what an island or an input made belongs to that island. So does a layer that the parser adds
    without a name from the graph (a broadcast). With `request_half`, reshapes of anything but inputs and constants are
    left to TensorRT; without it they are held in float32 like moves. TensorRT 8.6, which compiles the whole graph as
    one, gives every reshape but those of inputs the type of the whole (seen on an H200): holding them in float32 would
    leave it no choice but float32 throughout.
    """
    given, exact = set(inputs), set(inputs)
    for layer in layers:
        reads, nameless = set(layer.reads), not layer.name.startswith("/")
        follows = bool(reads) and reads <= exact and (nameless or layer.does != "computes")
        held = in_island(layer.name, islands) or follows
        if layer.does == "reshapes" and request_half:
            held = bool(reads) and reads <= given
        if held:
            exact.update(layer.makes)
            if layer.does == "is constant" or (layer.does == "reshapes" and reads <= given):
                given.update(layer.makes)
            yield "float32"
        else:
            yield "float16" if request_half and layer.does == "computes" and not nameless else ""
