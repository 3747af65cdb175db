"""The device of the tests: it finds every wait that is left out, and what the host does wrong."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
import pytest

from edge.engine.device import Event, Stream
from edge.engine.places import DEPTH
from edge.skeleton import Float

from .fake import HOST, FakeDevice, FakeProgram, Misuse, expected
from .test_pipeline import D, T, fill, make, support


class Careless(FakeDevice):
    """Leaves out one thing that the pipeline does with events; `done_with` is all that it does."""

    def __init__(self, seed: int, left_out: tuple[str, int, int] | None = None) -> None:
        super().__init__(seed)
        self.left_out, self.done_with = left_out, set[tuple[str, int, int]]()

    def wait(self, stream: Stream, event: Event) -> None:
        if self._cares("wait", stream, event):
            super().wait(stream, event)

    def record(self, event: Event, stream: Stream) -> None:
        if self._cares("record", stream, event):
            super().record(event, stream)

    def synchronize(self, event: Event) -> None:
        if self._cares("synchronize", HOST, event):
            super().synchronize(event)

    def _cares(self, *what: Any) -> bool:
        if self.sealed:
            self.done_with.add(what)
        return not self.sealed or what != self.left_out


def exercise(device: FakeDevice, **kw: Any) -> None:
    """Batches from all places, and support sets written in between: to both places, while any of them is read."""
    p, *_ = make(device=device, **kw)
    p.bind(*support(0))
    want: deque[Float] = deque()
    for i in range(40):
        bound = support(i // 4)
        if i % 4 == 0:
            for _ in range(1 + (i // 4) % 3 // 2):  # the next but one goes where batches under way may still read
                p.bind(*support(99))
            p.bind(*bound)
        if p.full:
            np.testing.assert_allclose(p.collect(), want.popleft(), rtol=1e-4, atol=1e-5)
        want.append(expected(*fill(p, 4, i), *bound)[1])
        p.submit(4)
    device.drain()


@pytest.mark.parametrize("only", [False, True], ids=["a run for each", "one run"])
def test_the_exercise_passes_on_a_device_that_keeps_its_promises(only: bool) -> None:
    exercise(FakeDevice(1), only=only)


def found(left_out: tuple[str, int, int]) -> bool:
    try:
        exercise(Careless(1, left_out))
    except AssertionError:
        return True
    return False


def test_whatever_is_left_out_is_found() -> None:
    """Each wait, each synchronisation and each event of the pipeline is needed; and the exercise comes by them all."""
    device = Careless(1)
    exercise(device)
    banks, slots = 2, DEPTH
    assert Counter(what for what, *_ in device.done_with) == {
        "record": banks + banks * slots + slots,  # written, used, returned
        "wait": 2 * banks * slots,  # every batch for what is written, and the writing for every batch
        "synchronize": banks + slots,
    }
    assert [what for what in sorted(device.done_with) if not found(what)] == []


def test_places_that_share_the_memory_they_compute_in_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_run = FakeProgram.new_run
    monkeypatch.setattr(FakeProgram, "new_run", lambda self, place: make_run(self, 0))
    with pytest.raises(Misuse, match="scratch"):
        exercise(FakeDevice(1))


def test_runs_of_one_place_may_not_overlap_and_those_of_two_may() -> None:
    device = FakeDevice()
    program = FakeProgram(device, D)
    shapes = {"joints": (1, T, 1, 3), "visible": (1, T, 1), "support": (1, 1, D), "support_mask": (1, 1)}
    runs = [program.new_run(place) for place in (0, 1, 0)]
    for run in runs:
        run.point(shapes, {name: device.allocate(400).address for name in (*shapes, *run.OUTPUTS)})
    one, two, again = ((run, device.stream()) for run in runs)
    for run, stream in (one, two, one):
        run.enqueue(stream)
    with pytest.raises(Misuse, match="scratch"):
        again[0].enqueue(again[1])


def test_the_fake_finds_what_the_host_does_wrong() -> None:
    p, device, _ = make()
    p.bind(*support(0))
    fill(p, 4, 0)
    place = p.staging
    p.submit(4)
    place.joints[0] = 9
    with pytest.raises(Misuse, match="host wrote to pinned memory"):
        p.collect()
    with pytest.raises(Misuse, match="allocate after everything"):
        device.allocate(4)
    with pytest.raises(Misuse, match="not pinned"):
        device.copy_in(next(iter([p._slots[0].joints])), np.zeros(4, np.float32), Stream(0))
