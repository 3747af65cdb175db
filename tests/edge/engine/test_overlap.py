"""What of a pipeline may overlap on the device: batches of different places, and the writing of a support set."""

from __future__ import annotations

import itertools

from edge.engine.pipeline import Pipeline
from edge.engine.places import DEPTH

from .fake import FakeDevice
from .test_pipeline import fill, make, support


def test_three_batches_are_under_way_at_a_time() -> None:
    """Submitting the next waits for nothing: neither for a result nor for anything on the host."""
    p, device, _ = make()
    p.bind(*support(0))
    before = device.calls["synchronize"]
    for i in range(DEPTH):
        fill(p, 2, i)
        p.submit(2)
    assert DEPTH == 3 and device.calls["synchronize"] == before and device.calls["done"] == 0
    assert sum(map(len, device.queues.values())) > 15  # nothing has run yet


def orders(only: bool) -> set[tuple[int, ...]]:
    """In which orders three batches were done, each of which may be held up by chance."""
    found = set()
    for seed in range(200):
        p, device, _ = make(seed, only=only)
        p.bind(*support(0))
        for i in range(DEPTH):
            fill(p, 2, i)
            p.submit(2)
        events = [device.events[slot.returned] for slot in p._slots]
        order: list[int] = []
        while len(order) < DEPTH:
            assert device._step()
            order += [i for i, e in enumerate(events) if e.happened == e.recorded and i not in order]
        found.add(tuple(order))
    return found


def test_no_batch_waits_for_another() -> None:
    assert orders(only=False) == set(itertools.permutations(range(DEPTH)))


def with_a_support_to_write() -> tuple[Pipeline, FakeDevice]:
    """All places under way, and another support set bound after them; nothing of it has run yet."""
    p, device, _ = make()
    p.bind(*support(0))
    device.drain()
    for i in range(DEPTH):
        fill(p, 2, i)
        p.submit(2)
    p.bind(*support(1))
    return p, device


def test_the_writing_of_a_support_holds_up_no_batch_under_way() -> None:
    p, device = with_a_support_to_write()
    del device.queues[p._loading]
    device.drain()
    events = [device.events[slot.returned] for slot in p._slots]
    assert all(e.happened == e.recorded == 2 for e in events)  # the first was at the start


def test_batches_that_read_the_other_support_do_not_hold_up_the_writing() -> None:
    p, device = with_a_support_to_write()
    writing = device.queues[p._loading]
    assert writing
    while writing:
        assert writing[0].ready()
        writing.popleft().run()


def test_a_program_with_one_run_only_has_all_its_batches_in_one_stream() -> None:
    assert len({slot.stream for slot in make(only=True)[0]._slots}) == 1
    assert len({slot.stream for slot in make()[0]._slots}) == DEPTH
    assert orders(only=True) == {tuple(range(DEPTH))}
