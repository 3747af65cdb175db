"""The stations between distances and alerts, joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge.judge import Judge, book_of
from edge.settings import Settings
from edge.windows import Place
from tests.edge.harness import HeightEngine, bench, message, person, support_of

SECOND = 10**9


class Two:
    """Slot 0 is person 7 at the gate, slot 1 person 8 in the hall; nobody moves."""

    def who(self, slot: int) -> tuple[str, int]:
        return (("gate1", 7), ("hall", 8))[slot]

    def place(self, slot: int) -> Place | None:
        return None


def judge(**settings: object) -> Judge:
    s = Settings(raise_after=2, **settings)  # type: ignore[arg-type]
    j = Judge(s, {"rates": np.array([[0.5, 60.0], [1.0, 6.0], [2.0, 0.6]])}, 2, Two())
    assert j.use(support_of("walk", "wave")) == []
    return j


def news(j: Judge, distance: list[float], slot: int = 0, windows: int = 8) -> int:
    found = 0
    for k in range(windows):
        v = j(np.array([slot]), np.array([k * SECOND // 4]), np.array([distance], np.float32), np.ones(1, np.float32))
        found += sum(c.type == "new" for c in v.changes)
    return found


def test_the_threshold_is_the_one_that_the_settings_ask_for() -> None:
    assert news(judge(), [1.3, 1.9]) == 1
    assert news(judge(sensitivity="low"), [1.3, 1.9]) == 0
    assert news(judge(), [0.9, 0.9]) == 0 and news(judge(false_alarms=30.0), [0.9, 0.9]) == 1
    assert news(judge(threshold=2.0), [1.3, 1.9]) == 0


@pytest.mark.parametrize("asked", [{"sensitivity": "low"}, {"false_alarms": 2.0}])
def test_what_a_bundle_without_calibration_cannot_do_is_said(asked: dict[str, Any]) -> None:
    (said,) = Judge(Settings(**asked), {}, 2, Two()).use(support_of("walk"))
    assert "have no effect" in said
    assert Judge(Settings(), {}, 2, Two()).use(support_of("walk")) == [] == judge(**asked).use(support_of("walk"))


def test_only_what_is_normal_on_the_stream_excuses() -> None:
    gated = judge(normal={"gate*": ["walk"]})
    assert news(gated, [1.9, 0.1], slot=1) == 0, "somebody waves in the hall"
    assert news(gated, [1.9, 0.1], slot=0) == 1, "and at the gate, where people walk"
    assert judge(normal={}).use(support_of("walk")) == []
    (problem,) = Judge(Settings(normal={"a": ["dance"]}), {}, 2, Two()).use(support_of("walk"))
    assert (
        "'a': 'dance' is not a category" in problem
        and "all categories count as normal there; there are walk" in problem
    )


def test_between_two_normal_actions_nothing_is_said_and_where_one_is_normal_it_is() -> None:
    between = replace(support_of("walk", "wave"), limit=np.ones(3), transitions=np.array([[0, 1]]))
    j = judge(normal={"gate*": ["walk"]})
    j.use(between)
    j(np.array([1]), np.array([-SECOND // 4]), np.array([[0.5, 1.9, 2.5]], np.float32), np.ones(1, np.float32))
    assert news(j, [2.5, 1.9, 0.4], slot=1) == 0, "from walking to waving, where both are normal"
    assert news(j, [2.5, 1.9, 1.5], slot=1) == 1, "like neither, nor the change between them"
    j.close([1])
    v = j(np.array([1]), np.array([10**12]), np.array([[2.5, 1.9, 0.4]], np.float32), np.ones(1, np.float32))
    assert v.nearest.tolist() == [1] and v.score[0] == pytest.approx(0.4), "it is said to be the nearer of the two"
    assert news(j, [2.5, 1.9, 0.4], slot=0) == 1, "nobody waves at the gate"


def test_a_window_between_two_actions_is_judged_by_what_is_usual_there() -> None:
    usual = np.array([0.9, 0.9, 0.3])
    j = judge()
    j.use(replace(support_of("walk", "wave"), limit=np.ones(3), transitions=np.array([[0, 1]]), usual=usual))
    distance, one = np.array([[2.5, 1.9, 0.4]], np.float32), np.ones(1, np.float32)
    scores = [float(j(np.array([0]), np.array([0]), distance, one).score[0]) for _ in range(60)]
    assert scores[-1] == pytest.approx(0.3, rel=0.1), "that is its level, and not the 0.9 of the category it counts as"


def test_people_of_one_number_at_two_cameras_have_alerts_of_their_own() -> None:
    b = bench(HeightEngine(), raise_after=2)
    both = zip(*([message(cam, k, 1 + k / 24, {5: person(9.0)}) for k in range(72)] for cam in "ab"), strict=True)
    b.play([m for pair in both for m in pair])
    ids = {(a.stream, a.id) for a in b.sink.alerts()}
    assert len(ids) == len({id for _, id in ids}) == 2


def test_an_alert_is_raised_told_of_and_ended_as_is_set() -> None:
    s = Settings(raise_after=2, clear_after=7, release=0.5, update_every=5.0, cool_down=9.0)
    book = book_of(s, 1, threshold=1.5)
    assert (book.raise_after, book.clear_after, book.threshold, book.release) == (2, 7, 1.5, 0.75)
    assert (book.update_every, book.cool_down) == (5 * SECOND, 9 * SECOND)


def test_a_category_that_is_normal_on_none_of_the_expected_streams_is_said() -> None:
    asked = Settings(normal={"dock": ["walk"]}, expect="dock")
    (said,) = Judge(asked, {}, 2, Two()).use(support_of("walk", "wave"))
    assert "'wave' is normal on none of dock" in said


def test_a_change_that_lasts_is_none() -> None:
    between = replace(support_of("walk", "wave"), limit=np.ones(3), transitions=np.array([[0, 1]]))
    one, whole = np.array([0]), np.ones(1, np.float32)

    def scores(j: Judge, rows: list[list[float]], start: int = 0) -> list[float]:
        ends = [start + k * SECOND // 4 for k in range(len(rows))]
        return [
            float(j(one, np.array([t]), np.array([r], np.float32), whole).score[0])
            for t, r in zip(ends, rows, strict=True)
        ]

    j, walks, changes = judge(), [0.5, 3.0, 3.0], [3.0, 2.0, 0.4]
    j.use(between)
    found = scores(j, [walks] * 4 + [changes] * 20)
    assert found[4:20] == pytest.approx([0.4] * 16), "for four seconds"
    assert found[20:] == pytest.approx([2.0] * 4)
    assert scores(j, [walks, changes], 10**12) == pytest.approx([0.5, 0.4]), "and again after a normal one"
    fresh = judge()
    fresh.use(between)
    n = 7  # in one batch, and from a track's first window on: nobody saw what the change was from
    ends, row = np.arange(n) * SECOND // 4, np.array([changes] * n, np.float32)
    found = fresh(np.zeros(n, np.intp), ends, row, np.ones(n, np.float32)).score.tolist()
    assert found == pytest.approx([0.4] * 5 + [2.0] * 2), "for one second"
    later = scores(fresh, [walks] + [changes] * 18, 10 * SECOND)
    assert later == pytest.approx([0.5] + [0.4] * 16 + [2.0] * 2), "and for four after a normal one"
    fresh.close([0])
    assert scores(fresh, [changes], 10**12) == pytest.approx([0.4])


def test_who_leaves_takes_along_what_was_usual() -> None:
    j = judge()
    support = replace(support_of("walk"), usual=np.array([0.6]))
    j.use(support)
    one, end, whole = np.array([0]), np.array([0]), np.ones(1, np.float32)
    first = j(one, end, np.array([[0.7]], np.float32), whole).score[0]
    assert first == pytest.approx(0.7 * np.exp(-0.25), rel=1e-3), "a new track is judged with caution"
    for k in range(60):
        later = j(one, end + k, np.array([[0.7]], np.float32), whole).score[0]
    assert 0.6 < later < 0.66 < 0.7, "by then it is nearly what is usual"
    j.close([0])
    assert j(one, end, np.array([[0.7]], np.float32), whole).score[0] == first


def test_a_person_too_poorly_seen_is_told_of_and_neither_scored_nor_alerted() -> None:
    hidden = np.zeros((1, 15), np.float32)
    hidden[:, :5] = 1
    frames = [message("cam", k, 5 + k / 24, {1: person(5.0)}, visible=hidden) for k in range(80)]
    b = bench(HeightEngine()).play(frames)
    assert b.sink.alerts() == [] and b.sink.scores() == {} and b.runtime.status().unclear == 1
    told = [e.unclear for e in b.sink.events if hasattr(e, "track") and hasattr(e, "unclear")]
    assert told and all(set(t) == {1} for t in told)


def test_an_alert_that_stands_goes_on_standing_while_the_person_is_hidden() -> None:
    hidden = np.zeros((1, 15), np.float32)
    hidden[:, :5] = 1
    frames = [message("cam", k, 5 + k / 24, {1: person(5.0)}) for k in range(80)]
    frames += [message("cam", k, 5 + k / 24, {1: person(5.0)}, visible=hidden) for k in range(80, 400)]
    b = bench(HeightEngine()).play(frames)
    kinds = [a.type for a in b.sink.alerts()]
    assert kinds.count("new") == 1 and "end" not in kinds and b.runtime.book.raised.sum() == 1


def test_a_track_that_is_lost_and_found_goes_on_with_its_alert() -> None:
    frames = [message("cam", k, 5 + k / 24, {1: person(5.0)}) for k in range(80)]
    again = [message("cam", 80 + k, 9.5 + k / 24, {2: person(5.0)}) for k in range(120)]
    b = bench(HeightEngine()).play([*frames, *again])
    alerts = b.sink.alerts()
    assert len({a.id for a in alerts}) == 1 and [a.type for a in alerts].count("new") == 1
    assert {a.track for a in alerts} == {1, 2} and alerts[-1].category == "calm"
