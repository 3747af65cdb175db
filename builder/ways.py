"""Chooses how to compile a plan: tries several ways, and takes the one that measures fastest on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder.gate import Output, Verdict
from edge.engine.record import Profile
from edge.errors import EngineError

Judged = tuple[Verdict, Output, dict[str, list[float]]]
"""The gate's verdict on a plan, what the plan computed, and [p50, p99] in ms by batch size if it passes."""
TOGETHER = 8
"""Windows computed together. Times 15 joints, that is 8 rows short of the larger tiles of the matrix units."""


@dataclass(frozen=True, slots=True)
class Way:
    """How many windows are computed together (builder/together.py), and whether float16 is requested by flag."""

    together: int
    request_half: bool

    def profile(self, wished: Profile) -> Profile:
        """The profile of such a plan: batch sizes are rounded up to whole groups of windows."""
        return wished.model_copy(update={"batch": [-(-n // self.together) * self.together for n in wished.batch]})


def ways(profile: Profile, several: bool, flagged: bool) -> list[list[Way]]:
    """The ways to try, in lists: the fastest of the first list that passes the gate is taken, else of the second.

    `several`: whether there is a graph for several windows at once. `flagged`: whether precision is a flag. Then
    float16 is requested first; TensorRT may be unable to fulfil that, so the second list does without.
    """
    groups = (TOGETHER, 1) if several and profile.batch[2] >= TOGETHER else (1,)
    first = [Way(n, request_half=flagged) for n in groups]
    return [first, [Way(1, request_half=False)]] if flagged else [first]


def best(
    tries: Sequence[Sequence[Way]],
    compiled: Callable[[Way], bytes],
    judged: Callable[[Way, bytes], Judged],
    profile: Profile,
) -> tuple[Way, bytes, Judged]:
    """The plan to take, or the best that failed the gate. Raises EngineError if nothing can be built at all."""

    def cost(each: tuple[Way, bytes, Judged]) -> tuple[bool, float]:
        verdict, _, times = each[2]
        sizes = [n for n in times if int(n) >= profile.batch[1]]
        return bool(verdict.failures), times[min(sizes, key=int)][0] if sizes else 0.0

    found: list[tuple[Way, bytes, Judged]] = []
    refusal = EngineError("nothing was tried")
    for together in tries:
        for way in together:
            try:
                plan = compiled(way)
                found.append((way, plan, judged(way, plan)))
            except EngineError as e:  # it cannot be built this way, or what was built cannot be opened
                if e.lost:
                    raise
                refusal = e
        if any(not verdict.failures for _, _, (verdict, _, _) in found):
            break
    if not found:
        raise refusal
    return min(found, key=cost)
