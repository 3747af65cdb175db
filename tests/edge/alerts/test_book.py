"""Hysteresis per track against a plain per-track state machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.alerts.book import AlertBook, Change, Place

SECOND = 10**9


def book(**given: float) -> AlertBook:
    options = {"threshold": 1.0, "release": 0.8, "raise_after": 2, "clear_after": 3, "update_every": 1.0, **given}
    return AlertBook(8, **options)  # type: ignore[arg-type]


def feed(b: AlertBook, slot: int, scores: list[float], step: float = 0.25, start: float = 10.0) -> list[Change]:
    out = []
    for k, s in enumerate(scores):
        end = np.array([round((start + k * step) * SECOND)])
        out += b.update(np.array([slot]), end, np.array([s], np.float32), lambda s: f"cam|{s}")
    return out


def test_evidence_adds_up_and_is_taken_back() -> None:
    # Two steps of a fifth are wanted: two windows a fifth above, or one at 1.44 times the threshold.
    assert [c.end for c in feed(book(), 1, [1.2, 1.2])] == [10 * SECOND + SECOND // 4]
    assert [c.end for c in feed(book(), 1, [1.45])] == [10 * SECOND]
    assert feed(book(), 1, [1.2, 0.8, 1.2, 0.8, 1.2]) == [], "what one window says, the next takes back"
    assert len(feed(book(), 1, [1.25, 0.98, 1.25])) == 1, "a window just below takes little back"
    assert feed(book(), 1, [1.0] * 50) == [], "the threshold itself is no evidence"
    assert len(feed(book(), 1, [1.02] * 19)) == 1, "what is faint must last"
    assert feed(book(), 1, [1.02] * 17) == []


def test_an_alert_says_since_when_and_how_high() -> None:
    (c,) = feed(book(), 1, [1.9, 0.2, 1.1, 1.35][1:])
    assert c.type == "new"
    assert (c.start, c.end) == (10 * SECOND + SECOND // 4, 10 * SECOND + SECOND // 2)
    assert (c.score, c.peak) == (np.float32(1.35), np.float32(1.35))


def test_it_ends_only_below_the_release_for_long_enough() -> None:
    b = book(update_every=100)
    changes = feed(b, 1, [1.5, 1.5, 0.9, 0.7, 0.7, 0.9, 0.7, 0.7, 0.7, 0.1])
    assert [c.type for c in changes] == ["new", "end"]
    assert changes[1].end == round((10 + 8 * 0.25) * SECOND)
    assert changes[1].id == changes[0].id and changes[1].peak == np.float32(1.5)


def test_the_release_is_a_share_of_the_threshold_and_what_reaches_the_threshold_by_a_rounding_counts() -> None:
    changes = feed(book(threshold=2.0, update_every=100), 1, [3.0, 1.7, 1.7, 1.7, 1.5, 1.5, 1.5])
    assert [(c.type, c.end) for c in changes] == [("new", 10 * SECOND), ("end", round(11.5 * SECOND))]
    assert float(np.float32(3.6)) < 3.6 and len(feed(book(threshold=3.0), 1, [3.6, 3.6])) == 1


def test_a_distance_of_nothing_or_by_a_rounding_less_is_as_normal_as_can_be() -> None:
    b = book(update_every=100)
    with np.errstate(all="raise"):
        changes = feed(b, 1, [0.0, -1e-7, 1.5, 1.5, 0.0, -1e-7, 0.0, 1.5])
    assert [c.type for c in changes] == ["new", "end", "new"]


def test_updates_come_at_their_interval_with_the_newest_score_and_the_peak() -> None:
    changes = feed(book(update_every=1.0), 1, [1.2, 1.2, 1.3, 1.9, 1.3, 1.25, 1.2, 1.2, 1.2])
    assert [c.type for c in changes] == ["new", "update"]
    assert changes[1].end - changes[0].end == SECOND
    assert changes[1].score == np.float32(1.25) and changes[1].peak == np.float32(1.9)


def test_ids_are_stable_across_runs_and_differ_between_alerts() -> None:
    scores = [1.5, 1.5, 0, 0, 0, 1.5, 1.5, 0, 0, 0]
    one, two = feed(book(), 1, scores), feed(book(), 1, scores)
    assert [c.id for c in one] == [c.id for c in two]
    assert len({c.id for c in one}) == 2
    assert {c.id for c in feed(book(), 2, scores)}.isdisjoint({c.id for c in one})
    assert {len(c.id) for c in one} == {16}, "as many as name each alert of years"


def test_a_track_that_goes_ends_its_alert_and_leaves_a_clean_slot() -> None:
    b = book()
    feed(b, 1, [1.5, 1.5, 1.7])
    (end,) = b.close([1, 2])
    assert (end.type, end.index, end.peak) == ("end", -1, np.float32(1.7))
    assert b.close([1]) == []
    assert [c.type for c in feed(b, 1, [1.2])] == [], "the new tenant's count starts at nought"


def test_windows_of_one_track_in_the_same_batch_are_taken_in_order() -> None:
    b = book(update_every=100)
    slots = np.array([1, 2, 1, 1, 2, 1])
    score = np.array([1.3, 0.1, 1.6, 0.1, 0.2, 0.1], np.float32)
    changes = b.update(slots, np.arange(6) * SECOND, score, str)
    assert [(c.type, c.slot, c.index) for c in changes] == [("new", 1, 2)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.79, 0.8, 0.95, 1.0, 1.5])), min_size=1, max_size=80),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 10),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_batching_agrees_with_one_window_at_a_time(
    windows: list[tuple[int, float]], raise_after: int, clear_after: int, batch: int
) -> None:
    b = book(raise_after=raise_after, clear_after=clear_after, update_every=1e6)
    slots = np.array([s for s, _ in windows])
    scores = np.array([x for _, x in windows], np.float32)
    ends = np.arange(len(windows)) * SECOND
    found = []
    for i in range(0, len(windows), batch):
        part = slice(i, i + batch)
        found += [(c.slot, c.type, c.end) for c in b.update(slots[part], ends[part], scores[part], str)]

    expected = []
    for slot in range(4):
        evidence, below, up = 0.0, 0, False
        for s, x, end in zip(slots, scores, ends, strict=True):
            if s != slot:
                continue
            evidence = max(0.0, evidence + math.log(x) / math.log(1.2))
            below = below + 1 if x < np.float32(0.8) else 0
            if not up and evidence >= raise_after - 1e-6:
                up = True
                expected.append((slot, "new", end))
            elif up and below >= clear_after:
                up, evidence, below = False, 0.0, 0
                expected.append((slot, "end", end))
    assert sorted(found) == sorted(expected)


def at(x: float, since: float, until: float, stream: str = "cam") -> Place:
    middle = np.array([x, 1, 0], np.float32)
    return Place(stream, round(since * SECOND), round(until * SECOND), middle, middle, 1.7)


def followed(places: dict[int, Place], **given: float) -> AlertBook:
    """A book that knows where its tracks are."""
    options = {"threshold": 1.0, "release": 0.8, "raise_after": 2, "clear_after": 3, "update_every": 9.0, **given}
    return AlertBook(8, place=places.__getitem__, **options)  # type: ignore[arg-type]


def lost_and_found(second: Place, *, closed: bool = True) -> list[Change]:
    """Track 1 alarms and is lost at 12 s; track 2 alarms at 15 s, being where `second` says."""
    places = {1: at(0.0, 5, 12), 2: second}
    b = AlertBook(8, threshold=1, release=0.8, raise_after=2, clear_after=3, update_every=100, place=places.__getitem__)
    changes = feed(b, 1, [1.5, 1.5, 1.9])
    if closed:
        changes += b.close([1])
    changes += feed(b, 2, [1.5, 1.5], start=15)
    return changes + feed(b, 2, [0.1] * 3, start=16)


@pytest.mark.parametrize("closed", [True, False])
def test_an_alert_goes_on_under_another_track_id(closed: bool) -> None:
    changes = lost_and_found(at(0.8, 12.5, 15), closed=closed)
    assert [c.type for c in changes] == ["new", *["end"] * closed, "update", "end"]
    assert len({c.id for c in changes}) == 1
    assert changes[-1].slot == 2 and changes[-1].start == 10 * SECOND and changes[-1].peak == np.float32(1.9)


def test_a_lost_person_who_was_found_and_is_abnormal_long_after_has_an_alert_of_their_own() -> None:
    for calm, kind in ((12, "update"), (13, "new")):
        b = followed({1: at(0.0, 5, 12), 2: at(0.5, 12.5, 900)}, cool_down=3)
        (first,) = feed(b, 1, [2.0])
        b.close([1])
        (found,) = feed(b, 2, [*[0.5] * calm, 2.0], start=15)
        assert (found.type, found.id == first.id) == (kind, kind == "update"), f"{calm} windows, then another"
        b.close([2])
        assert b._first[2] == -1, "the slot's next person has a first window of their own"


def test_the_higher_peak_is_that_of_the_alert_wherever_it_was() -> None:
    for scores in ([1.5, 1.9], [1.9, 1.5]):
        b = followed({1: at(0.0, 5, 12), 2: at(0.5, 12.5, 15)})
        feed(b, 1, scores[:1] * 2)
        b.close([1])
        (found,) = feed(b, 2, scores[1:], start=15)
        assert (found.type, found.peak) == ("update", np.float32(1.9))


@pytest.mark.parametrize("since", [12 - 0.5, 12 + 2.0])
def test_just_the_longest_overlap_and_the_longest_absence_are_within(since: float) -> None:
    assert len({c.id for c in lost_and_found(at(0.8, since, 15))}) == 1


def test_where_one_was_last_and_the_other_first_is_what_counts() -> None:
    far, near = np.array([9, 1, 0], np.float32), np.array([0, 1, 0], np.float32)
    for (old_first, old_last, new_first, new_last), ids in (((far, near, near, far), 1), ((near, far, near, near), 2)):
        old = Place("cam", 5 * SECOND, 12 * SECOND, old_first, old_last, 1.7)
        b = followed({1: old, 2: Place("cam", 13 * SECOND, 15 * SECOND, new_first, new_last, 1.7)})
        changes = [*feed(b, 1, [2.0]), *b.close([1]), *feed(b, 2, [2.0], start=15)]
        assert len({c.id for c in changes}) == ids


def test_who_gave_an_alert_away_and_alarms_again_has_another() -> None:
    b = followed({1: at(0.0, 5, 12), 2: at(0.5, 12.5, 20)}, cool_down=10)
    first, *_ = feed(b, 1, [2.0, 0.1, 0.1, 0.1])
    assert [c.id for c in feed(b, 1, [2.0], start=12) + feed(b, 2, [2.0], start=13)] == [first.id] * 2
    (again,) = feed(b, 1, [2.0], start=15)
    assert again.type == "new" and again.id != first.id, "which stands where it went"


@pytest.mark.parametrize(
    "second",
    [at(2.5, 12.5, 15), at(0.8, 14.5, 15), at(0.8, 11, 15), at(0.8, 12.5, 15, stream="other")],
    ids=["elsewhere", "too late", "beside it", "another camera"],
)
def test_another_person_has_an_alert_of_their_own(second: Place) -> None:
    changes = lost_and_found(second)
    assert [c.type for c in changes] == ["new", "end", "new", "end"] and len({c.id for c in changes}) == 2


def test_a_track_that_overlaps_the_lost_one_goes_on_with_its_alert_and_the_larger_of_both_is_the_measure() -> None:
    child = Place("cam", round(11.6 * SECOND), 15 * SECOND, *[np.array([1.5, 1, 0], np.float32)] * 2, 0.5)
    for second in (at(0.8, 11.6, 15), child):
        changes = lost_and_found(second)
        assert [c.type for c in changes] == ["new", "end", "update", "end"] and len({c.id for c in changes}) == 1


def test_an_alert_goes_on_in_one_track_only_and_the_other_ends_nothing() -> None:
    places = {1: at(0.0, 5, 12), 2: at(0.5, 12.5, 15), 3: at(-0.5, 12.5, 15)}
    for closed in (True, False):
        b = followed(places)
        (first,) = feed(b, 1, [2.0])
        if closed:
            b.close([1])
        second, third = (feed(b, slot, [2.0], start=15)[0] for slot in (2, 3))
        if not closed:  # it goes on where it stands: 2 took it from 1, and 3 finds it in 2, which is elsewhere in time
            assert not b.raised[1] and b.close([1]) == []
        assert (second.type, second.id) == ("update", first.id)
        assert third.type == "new" and third.id != first.id


def test_what_had_ended_long_before_its_track_was_lost_does_not_go_on_elsewhere() -> None:
    for left, kind in ((13, "update"), (40, "new")):
        places = {1: at(0.0, 5, left), 2: at(0.5, left + 1, left + 3)}
        b = followed(places, cool_down=3)
        ended = feed(b, 1, [2.0, 0.1, 0.1, 0.1])[-1]
        assert ended.type == "end" and b.may_be_continued([1]) and not b.may_be_continued([2])
        b.close([1])
        assert not b.may_be_continued([1])
        assert feed(b, 2, [2.0], start=left + 3)[0].type == kind


def test_a_cool_down_begins_where_the_alert_ended_however_long_it_stood() -> None:
    b = book(cool_down=2.0, update_every=100)
    changes = feed(b, 1, [*[1.5] * 40, 0.1, 0.1, 0.1, 0.1, 1.5, 1.5])
    assert [c.type for c in changes] == ["new", "end", "update"]


def test_what_begins_within_the_cool_down_goes_on_also_when_it_is_raised_after_it() -> None:
    b = book(cool_down=2.0, update_every=100, raise_after=4)
    changes = feed(b, 1, [2.1, 2.1, 0.1, 0.1, 0.1, *[1.05] * 20])
    assert [c.type for c in changes] == ["new", "end", "update"] and changes[2].end - changes[1].end > 2 * SECOND


def test_a_peak_is_the_alerts_own_and_so_is_its_start_while_it_stands() -> None:
    b = book(update_every=1.0)
    first = feed(b, 1, [3.0, 0.1, 0.1, 0.1])
    second = feed(b, 1, [1.5, 0.9, 0.9, 0.9, 0.9, 1.5, 0.9, 0.9, 0.9], start=60)
    assert [c.type for c in second] == ["new", "update", "update"] and second[0].id != first[0].id
    assert {c.start for c in second} == {60 * SECOND} and second[-1].peak == np.float32(1.5)


def test_lost_alerts_are_forgotten_by_the_clock_of_their_own_camera() -> None:
    places = {1: at(0.0, 5, 12), 2: at(0.5, 12.5, 15), 3: at(0.0, 9000, 9003, stream="other")}
    b = followed(places)
    (first,) = feed(b, 1, [2.0])
    b.close([1])
    feed(b, 3, [2.0], start=9002)
    b.close([3])
    assert feed(b, 2, [2.0], start=15)[0].id == first.id
    places[4] = at(9.0, 5, 12 + 3)  # another one is lost soon after: whom it was before may still be found
    places[5] = at(0.5, 13, 16)
    for lost in (1, 4):
        feed(b, lost, [2.0], start=17)
        b.close([lost])
    assert feed(b, 5, [2.0], start=18)[0].type == "update"
    for n in range(1, 20):
        places[4] = at(0.0, 100 * n, 100 * n + 3)
        feed(b, 4, [2.0], start=100 * n + 2)
        b.close([4])
    assert len(b._lost) == 2, "the last of each camera"
    places[4] = at(0.0, 5, 12)
    feed(b, 4, [2.0])
    b.close([4])
    assert len(b._lost) == 2, "also when its clock is set back"


def test_cameras_that_never_come_again_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.book.LOST_MOST", 5)
    places: dict[int, Place] = {}
    b = followed(places)
    for n in range(20):
        places[1] = at(0.0, 5, 12, stream=f"cam{n}")
        feed(b, 1, [2.0])
        b.close([1])
    assert [place.stream for place, _ in b._lost] == [f"cam{n}" for n in range(15, 20)]


def test_what_begins_again_at_once_is_the_same_alert() -> None:
    # The alert ends at 11 s; it comes again at 12 s, at 13 s or later.
    continued, anew = ["new", "end", "update", "end"], ["new", "end", "new", "end"]
    for calm, kinds in ((3, continued), (7, continued), (8, anew), (11, anew)):
        b = book(cool_down=2.0, update_every=100)
        changes = feed(b, 1, [1.5, 1.5, 0.1, 0.1, 0.1, *[0.1] * calm, 1.5, 1.5, 0.1, 0.1, 0.1])
        assert [c.type for c in changes] == kinds
        assert len({c.id for c in changes}) == kinds.count("new")
        assert [c.raised for c in changes] == [k != "end" for k in kinds]
        if kinds[2] == "update":
            assert changes[2].start == changes[0].start


def test_who_cannot_be_judged_is_counted_and_keeps_the_alert() -> None:
    b = book()
    feed(b, 1, [1.5, 1.5])
    b.unclear(np.array([1, 2]))
    assert b.unclear_count == 2 and b.raised[1] and not b.raised[2]
    feed(b, 1, [1.5], start=20)
    assert b.unclear_count == 1
    b.close([2])
    assert b.unclear_count == 0
