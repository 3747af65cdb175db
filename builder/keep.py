"""Finds which parts to keep in float32 when a plan fails the gate, by building.

Rounding the float16 graph as numpy would tells within seconds how much accuracy each part costs, and so the order to
try them in. How many of them it takes, only the device can tell. A build takes minutes, so this is a binary search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.examples import Examples
from builder.gate import Output, judge


def sorted_by_cost(data: bytes, islands: Sequence[str], exact: Output, examples: Examples) -> list[str]:
    """The parts outside `islands`, sorted by what they cost alone in float16: the most accuracy first."""
    import onnx

    from builder.half import parts, to_half

    candidates = parts(onnx.load_from_string(data), islands)

    def cost(part: str) -> float:
        others = [p for p in candidates if p != part]
        return judge(exact, to_half(data, [*islands, *others]), examples).strain

    costs = {p: cost(p) for p in candidates}
    return sorted(candidates, key=lambda p: -costs[p])


def shortest_passing(candidates: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """The shortest prefix of `candidates` that passes, by binary search; None if even all of them do not.

    It is the shortest if every longer prefix of one that passes passes too. If not, it is still one that passed.
    """
    if not passes(candidates):
        return None
    low, high = 0, len(candidates)
    while high - low > 1:
        middle = (low + high) // 2
        if passes(candidates[:middle]):
            high = middle
        else:
            low = middle
    return list(candidates[:high])
