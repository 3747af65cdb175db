"""What the engine does not take, and whose result is whose then."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import EngineError
from edge.events import Scores
from edge.skeleton import Float

from ..harness import Bench, HeightEngine, LateEngine, bench, message, person, stand


class Choosy(LateEngine):
    """Refuses one batch while another is under way, and stays as it was."""

    refused = 0

    def submit(self, n: int) -> None:
        if self._under and not self.refused:
            self.refused = n
            raise EngineError("no room just now", why="a test said so")
        super().submit(n)


def test_a_batch_that_is_refused_is_counted_and_the_one_before_it_keeps_its_people() -> None:
    engine = Choosy(HeightEngine(4), chance=0.0)
    b = bench(engine)
    heights = {i: 0.1 * i for i in range(8)}
    b.play([m for ms in zip(*(stand(f"cam{i}", 3, {i: h}) for i, h in heights.items()), strict=True) for m in ms])
    assert engine.refused and b.runtime.counts.skipped["engine_failed"] == engine.refused
    scores = [e for e in b.sink.events if isinstance(e, Scores)]
    scored = [(t, d) for e in scores for t, d in zip(e.track, e.distance, strict=True)]
    assert len(scored) == b.runtime.counts.windows > 20
    for track, distance in scored:
        assert distance == pytest.approx(heights[track], abs=1e-5)


@pytest.mark.parametrize("timeout", np.arange(2.1, 3.2, 0.1))
def test_who_goes_on_under_another_id_does_not_depend_on_how_busy_the_engine_is(timeout: float) -> None:
    """The second track's first windows are due while the first one's alert stands, and may be judged after its end."""
    first = stand("cam", 6, {1: 5.0})
    second = [message("cam", len(first) + k, 11.1 + k / 24, {2: person(5.0)}) for k in range(24 * 5)]

    def told(engine: HeightEngine | LateEngine) -> list[tuple[str, int, str]]:
        b = bench(engine, track_timeout=timeout).play([*first, *second], chunk=1)
        return [(a.type, a.track, a.id) for a in b.sink.alerts()]

    usual = told(HeightEngine(1))
    assert {track for _, track, _ in usual} == {1, 2} and len({name for *_, name in usual}) == 1
    for seed in range(5):
        for chance in (0.0, 0.3):
            assert told(LateEngine(HeightEngine(1), seed=seed, chance=chance)) == usual


def test_while_the_engine_has_work_a_batch_grows_beyond_its_deadline() -> None:
    engine = LateEngine(HeightEngine(8), chance=0.0)
    b = bench(engine, batch_deadline=0.02)
    b.source.queue = [[m] for m in stand("cam", 4, dict.fromkeys(range(3), 0.1))]
    b.source.chunk = 1
    while b.source.queue:
        b.runtime.step(0.0)
        b.clock.now += 0.05
    b.runtime.dispatch.flush()
    first, *others, _ = engine.inner.batches
    assert first < 8 and others == [8, 8], "27 windows: the engine was idle for the first of them only"


@pytest.mark.parametrize("size", [2, 8], ids=["under way", "staged"])
def test_who_goes_is_judged_first_and_by_name(size: int) -> None:
    engine = LateEngine(HeightEngine(size), chance=0.0)
    b = bench(engine, batch_deadline=1.0)
    b.source.queue = [[m] for m in stand("cam", 2.0, {7: 0.1, 8: 0.1})]
    while b.source.queue:
        b.runtime.step(0.0)
    assert engine.pending == (size == 2) and b.sink.scores() == {}
    b.runtime._release(list(b.runtime.windows.streams["cam"].slots.values()))
    assert {(stream, track) for stream, track, _ in b.sink.scores()} == {("cam", 7), ("cam", 8)}


def test_nobody_is_staged_before_those_who_wait_already() -> None:
    engine = LateEngine(HeightEngine(1), chance=0.0)
    b = bench(engine, overload="drop-oldest")
    b.source.queue = [[m] for m in stand("cam", 2.0, dict.fromkeys(range(4), 0.1))]
    while b.source.queue:
        b.runtime.step(0.0)
    dispatch, windows = b.runtime.dispatch, b.runtime.windows
    assert engine.full and dispatch.overload.backlog.n == 2
    dispatch._collect()
    slots = np.array([3])
    dispatch.stage(slots, windows.ends(slots), 0.0)
    assert dispatch.overload.backlog.n == 2 and dispatch.batch.n == 0 and not engine.full
    assert dispatch.overload.backlog.take(2) == [2, 3]


def waiting(engine: HeightEngine | LateEngine, people: int, **settings: object) -> Bench:
    """People whose first windows were due while the engine took no more than it has room for."""
    b = bench(engine, overload="drop-oldest", **settings)
    b.source.queue = [[m] for m in stand("cam", 2.0, dict.fromkeys(range(people), 0.1))]
    while b.source.queue:
        b.runtime.step(0.0)
    return b


def test_a_flush_judges_all_who_wait_however_often_the_engine_is_full() -> None:
    b = waiting(LateEngine(HeightEngine(1), chance=0.0), 7)
    assert b.runtime.dispatch.overload.backlog.n == 5
    b.runtime.dispatch.flush()
    assert {track for _, track, _ in b.sink.scores()} == set(range(7))


def test_all_results_that_are_ready_are_collected_and_who_waited_is_as_old_as_their_turn() -> None:
    engine = LateEngine(HeightEngine(4), chance=0.0)
    b = waiting(engine, 9)
    dispatch = b.runtime.dispatch
    assert dispatch.in_flight == 2 and dispatch.overload.backlog.n == 1
    engine._chance = 1.0
    b.clock.now += 5
    dispatch.turn()
    assert dispatch.in_flight == 0 and dispatch.batch.n == 1 and dispatch.batch.since == b.clock.now


def test_it_is_patient_until_the_deadline_of_what_is_staged() -> None:
    b = waiting(HeightEngine(8), 3, batch_deadline=1.0)
    dispatch, since = b.runtime.dispatch, b.runtime.dispatch.batch.since
    for later, found in ((0.25, 0.75), (0.75, 0.25), (1.0, 0.0), (9.0, 0.0)):
        b.clock.now = since + later
        assert dispatch.patience(3.0) == pytest.approx(found) and dispatch.patience(0.1) == min(found, 0.1)
    dispatch.settle()
    assert dispatch.patience(3.0) == 3.0


class Losing(LateEngine):
    """Loses all that it has under way when its device is gone."""

    def collect(self) -> Float:
        while self._under:
            self._free.append(self._under.pop(0)[0])
        raise EngineError("the device is gone", why="a test said so")


def test_batches_that_are_lost_together_are_all_counted_and_none_is_awaited() -> None:
    b = waiting(Losing(HeightEngine(2), chance=0.0), 4)
    dispatch = b.runtime.dispatch
    assert dispatch.in_flight == 2
    dispatch._collect()
    assert dispatch.in_flight == 0 and b.runtime.counts.skipped["engine_failed"] == 4
