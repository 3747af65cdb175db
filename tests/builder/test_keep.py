"""What to keep in float32 where a plan is refused."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest

from builder.examples import Examples
from builder.gate import outputs
from builder.half import parts
from builder.islands import ISLANDS
from builder.keep import shortest_passing, sorted_by_cost
from edge.bundle import GRAPH, Bundle


@pytest.mark.parametrize("needed", range(1, 12))
def test_what_to_keep_is_found_by_halving(needed: int) -> None:
    tried: list[int] = []

    def passes(parts: Sequence[str]) -> bool:
        tried.append(len(parts))
        return len(parts) >= needed

    names = [f"/{i}/" for i in range(11)]
    assert shortest_passing(names, passes) == names[:needed] and len(tried) <= 5
    assert shortest_passing(names, lambda p: False) is None


def test_the_part_that_costs_most_comes_first(built: Bundle, examples: Examples) -> None:
    data = built.read(GRAPH)
    exact = outputs(data, examples)
    islands = [i for i in ISLANDS if i != "/encoder/normalise/"]  # which overflows on millimetres
    order = sorted_by_cost(data, islands, exact, examples)
    assert order[0] == "/encoder/normalise/"
    assert sorted(order) == sorted(parts(onnx.load_from_string(data), islands))
