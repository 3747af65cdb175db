"""How a pipeline begins and ends: every run is there from the start, and nothing of it runs when it goes."""

from __future__ import annotations

from edge.engine.places import DEPTH

from .test_pipeline import fill, make, support


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
