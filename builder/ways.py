"""In which ways a plan is compiled, and which is taken: what is faster is measured on the machine that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder.gate import Output, Verdict
from edge.engine.record import Profile
from edge.errors import EngineError

Judged = tuple[Verdict, Output, dict[str, list[float]]]
"""What the gate says of a plan, what it computed, and [p50, p99] in ms by batch size where it passes."""
TOGETHER = 8
"""Times 15 joints: as many rows as the larger tiles of the matrix units have, less 8."""


@dataclass(frozen=True, slots=True)
class Way:
    """Windows that are computed together (builder/together.py); whether float16 is asked for where it is a flag."""

    together: int
    ask: bool

    def profile(self, wished: Profile) -> Profile:
        """What such a plan is built for: whole groups of windows."""
        return wished.model_copy(update={"batch": [-(-n // self.together) * self.together for n in wished.batch]})


def ways(profile: Profile, several: bool, flagged: bool) -> list[list[Way]]:
    """What is tried: the fastest of the first list that passes the gate is taken, else of the second.

    `several`: whether there is a graph for several windows at once. `flagged`: where precision is a flag, float16 is
    asked for; there may be no way to do what was asked for, and then it is not.
    """
    groups = (TOGETHER, 1) if several and profile.batch[2] >= TOGETHER else (1,)
    first = [Way(n, ask=flagged) for n in groups]
    return [first, [Way(1, ask=False)]] if flagged else [first]


def best(
    tries: Sequence[Sequence[Way]],
    compiled: Callable[[Way], bytes],
    judged: Callable[[Way, bytes], Judged],
    profile: Profile,
) -> tuple[Way, bytes, Judged]:
    """The plan that is taken; or what failed the gate. Raises EngineError where nothing can be built at all."""

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
            except EngineError as e:  # it cannot be built so, or what was built cannot be opened
                if e.lost:
                    raise
                refusal = e
        if any(not verdict.failures for _, _, (verdict, _, _) in found):
            break
    if not found:
        raise refusal
    return min(found, key=cost)
