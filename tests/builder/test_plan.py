"""How a network is made, on each kind of TensorRT; `test_rtx.py` has a real one, whose networks are always typed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from builder.plan import create_network, is_typed


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"EXPLICIT_BATCH": 0}, 0b1),
        ({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 0b11),
        ({"STRONGLY_TYPED": 1}, 0b10),
        ({"STRONGLY_TYPED": 4}, 0b10000),
    ],
    ids=["8", "10", "11", "other numbers"],
)
def test_a_network_is_bound_to_its_types_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, int], expected: int
) -> None:
    trt = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(**flags))
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert create_network(SimpleNamespace(create_network=lambda given: given)) == expected  # type: ignore[arg-type, comparison-overlap]
    assert is_typed() == ("STRONGLY_TYPED" in flags)
