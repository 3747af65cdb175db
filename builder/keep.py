"""When a plan fails the gate: which parts to keep in float32, found by building.

The float16 graph as numpy would round it says in seconds how much each part costs, and so in which order to try; how
many of them it takes, only the device says. Builds are minutes, so their number is halved each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.examples import Examples
from builder.gate import Output, judge


def by_cost(data: bytes, islands: Sequence[str], exact: Output, examples: Examples) -> list[str]:
    """The parts outside `islands`, the one that costs most accuracy when it alone is float16 first."""
    import onnx

    from builder.half import parts, to_half

    candidates = parts(onnx.load_from_string(data), islands)

    def cost(part: str) -> float:
        others = [p for p in candidates if p != part]
        return judge(exact, to_half(data, [*islands, *others]), examples).strain

    costs = {p: cost(p) for p in candidates}
    return sorted(candidates, key=lambda p: -costs[p])


def least(candidates: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """The shortest beginning of `candidates` that passes, by halving; None if even all of them do not.

    Right where a longer beginning passes whenever a shorter one does; else it is still one that was seen to pass.
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
