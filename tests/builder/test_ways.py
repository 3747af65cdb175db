"""Which ways a plan is compiled in, and which is taken."""

from __future__ import annotations

import numpy as np
import pytest

from builder.gate import Output, Verdict
from builder.ways import TOGETHER, Judged, Way, best, ways
from edge.engine.record import Profile
from edge.errors import EngineError

USUAL = Profile(batch=[1, 8, 20], categories=[1, 2, 3], shots=[1, 8, 32])
BAD = Verdict(cosine=0.9, distance=0.5, auroc=0.1, auroc_float32=0.9, windows=1)
GOOD = Verdict(cosine=1, distance=0, auroc=0, auroc_float32=0.9, windows=1)
NOTHING = Output(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
EIGHT, ONE, UNASKED = Way(8, True), Way(1, True), Way(1, False)


def test_eight_windows_at_once_are_tried_where_there_may_be_as_many() -> None:
    assert TOGETHER == 8
    assert ways(USUAL, True, True) == [[EIGHT, ONE], [UNASKED]]
    assert ways(USUAL, True, False) == [[Way(8, False), UNASKED]]
    assert ways(USUAL, False, True) == [[ONE], [UNASKED]]
    few = USUAL.model_copy(update={"batch": [1, 4, 7]})
    assert ways(few, True, False) == [[UNASKED]]


def test_a_plan_for_groups_has_room_for_whole_ones() -> None:
    assert EIGHT.profile(USUAL).batch == [8, 8, 24] and ONE.profile(USUAL) == USUAL
    assert EIGHT.profile(USUAL).shots == USUAL.shots


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ({EIGHT: (GOOD, 1.0), ONE: (GOOD, 2.0)}, EIGHT),
        ({EIGHT: (GOOD, 2.0), ONE: (GOOD, 1.0)}, ONE),
        ({EIGHT: (BAD, 1.0), ONE: (GOOD, 2.0)}, ONE),
        ({EIGHT: None, ONE: (GOOD, 2.0)}, ONE),
        ({EIGHT: (BAD, 1.0), ONE: None, UNASKED: (GOOD, 3.0)}, UNASKED),
        ({EIGHT: None, ONE: None, UNASKED: (BAD, 3.0)}, UNASKED),
    ],
)
def test_the_fastest_plan_that_passes_is_taken(found: dict[Way, tuple[Verdict, float] | None], taken: Way) -> None:
    """Its time at the usual size, 8 here, counts; a way that TensorRT does not find is not an error."""
    tried: list[Way] = []

    def compiled(way: Way) -> bytes:
        tried.append(way)
        if found[way] is None:
            raise EngineError("could not build the plan", why="Could not find any implementation")
        return repr(way).encode()

    def judged(way: Way, plan: bytes) -> Judged:
        assert plan == repr(way).encode()
        verdict, ms = found[way] or pytest.fail("judged")
        return verdict, NOTHING, {} if verdict.failures else {"4": [9 / ms, 1], "8": [ms, 1], "16": [9 / ms, 1]}

    way, plan, (verdict, *_) = best([[EIGHT, ONE], [UNASKED]], compiled, judged, USUAL)
    assert way == taken and plan == repr(taken).encode()
    assert verdict is (found[taken] or pytest.fail("none"))[0]
    assert tried == list(found), "what passes ends the search"


def test_a_plan_that_cannot_be_opened_is_not_taken() -> None:
    def judged(way: Way, plan: bytes) -> Judged:
        if way == Way(8, False):
            raise EngineError("no room on the GPU to run the plan")
        return GOOD, NOTHING, {"8": [1.0, 1]}

    assert best(ways(USUAL, True, False), lambda way: b"x", judged, USUAL)[0] == UNASKED
    with pytest.raises(EngineError, match="no room"):
        best([[Way(8, False)]], lambda way: b"x", judged, USUAL)


def test_a_device_that_is_lost_or_a_plan_that_cannot_be_built_is_not_tried_around() -> None:
    def lost(way: Way) -> bytes:
        assert way == EIGHT, "tried again on a device that is lost"
        raise EngineError("the GPU is lost", lost=True)

    def never(way: Way) -> bytes:
        tried.append(way)
        raise EngineError("could not build the plan")

    tried: list[Way] = []
    for compiled, said in ((lost, "is lost"), (never, "could not build")):
        with pytest.raises(EngineError, match=said):
            best(ways(USUAL, True, True), compiled, lambda way, plan: pytest.fail("judged"), USUAL)
    assert tried == [EIGHT, ONE, UNASKED]
