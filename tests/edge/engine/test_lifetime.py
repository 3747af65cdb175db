"""How a pipeline begins and ends: every run is there from the start, and nothing of it runs when it goes."""

from __future__ import annotations

import gc
import weakref

import pytest

from edge.engine.pipeline import Pipeline
from edge.engine.places import DEPTH
from edge.errors import EngineError

from .fake import FakeDevice, FakeProgram
from .test_pipeline import ROOM, D, T, fill, make, support


def test_every_run_there_will_be_is_made_at_the_start() -> None:
    """One for each graph that is captured: a graph relies on the state of what it was captured of."""
    p, device, program = make()
    made = 2 * DEPTH * len(p.buckets)
    assert program.made == made
    for i in range(8):
        p.bind(*support(i, 1 + i % 3))
        p.warm()
    assert program.made == made and len(set(map(id, device.captured.values()))) == len(device.captured) > 0


def test_closing_waits_for_what_is_under_way_and_drops_the_graphs_first() -> None:
    p, device, _ = make()
    p.bind(*support(0))
    p.warm()
    for _ in range(DEPTH):
        fill(p, 3, 1)
        p.submit(3)
    assert p.full
    p.close()
    assert device.closed and not device.graphs


def test_a_device_lost_in_closing_is_left_alone() -> None:
    p, device, _ = make()
    p.bind(*support(0))
    fill(p, 3, 1)
    p.submit(3)
    device.lose_after = 0
    p.close()
    assert device.reported and not device.closed


@pytest.mark.parametrize("after", [0, 10, 40, 60])
def test_a_device_lost_while_a_pipeline_is_made_is_left_alone(after: int) -> None:
    device = FakeDevice()
    program = FakeProgram(device, D)
    device.lose_after = after
    destroyed: list[str] = []
    for thing in (device, program):
        weakref.finalize(thing, destroyed.append, type(thing).__name__).atexit = False
    with pytest.raises(EngineError, match="pulled it out"):
        Pipeline(device, program, ROOM, T, D, max_batch=8)
    assert device.reported and not device.closed
    del device, program, thing
    gc.collect()
    assert not destroyed


def test_what_is_refused_while_a_pipeline_is_made_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when there is no memory for it: what it had of that is another's, and ONNX Runtime goes on."""
    device = FakeDevice()
    program, made = FakeProgram(device, D), list[int]()

    def event() -> int:
        made.append(1)
        if len(made) > 5:
            raise EngineError("the GPU is out of memory")
        return FakeDevice.event(device)

    monkeypatch.setattr(device, "event", event)
    with pytest.raises(EngineError, match="out of memory"):
        Pipeline(device, program, ROOM, T, D, max_batch=8)
    assert device.closed
