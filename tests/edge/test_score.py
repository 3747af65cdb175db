"""The limit and the score against plain arithmetic."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.score import (
    SENSITIVITY,
    NormalByStream,
    Scorer,
    TrackBaseline,
    level_of,
    margin_of,
    match,
    spreads,
    threshold_of,
)
from edge.skeleton import Float

TAU = 0.05


def units(n: int, seed: int, spread: float = 1.0, d: int = 16) -> Float:
    rng = np.random.default_rng(seed)
    x = np.eye(d)[0] + spread * rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_match_is_the_softmax_weighted_mean_of_cosine_distances() -> None:
    e, s = units(4, 0), units(6, 1)
    for i, found in enumerate(match(e, s, TAU)):
        d = [1 - float(e[i] @ row) for row in s]
        w = [np.exp(-x / TAU) for x in d]
        assert found == pytest.approx(sum(a * b for a, b in zip(w, d, strict=True)) / sum(w), rel=1e-4)


def test_match_lies_between_the_nearest_and_the_mean_and_repeated_rows_change_nothing() -> None:
    e, s = units(20, 0), units(5, 1)
    d = 1 - e @ s.T
    found = match(e, s, TAU)
    assert (found >= d.min(1) - 1e-6).all() and (found <= d.mean(1) + 1e-6).all()
    np.testing.assert_allclose(match(e, np.concatenate([s, s, s]), TAU), found, atol=1e-9)
    np.testing.assert_allclose(match(e, s, 1e-5), d.min(1), atol=1e-6, err_msg="also where every weight is tiny")


def log(x: float) -> float:
    return float(np.log(x + 1e-3))


def test_what_enrolment_knows_by_hand() -> None:
    a, b, c = (units(5, k, 0.3) for k in range(3))
    cohort, everything = units(50, 9), np.concatenate([a, b, c])
    apart = np.concatenate(
        [
            match(a, np.concatenate([b, c]), TAU),
            match(b, np.concatenate([a, c]), TAU),
            match(c, np.concatenate([a, b]), TAU),
        ]
    )
    expected = [
        log(float(np.quantile(match(cohort, everything, TAU), 0.05))),
        log(float(match(everything, everything, TAU).mean())),
        log(float(np.median(apart))),
    ]
    np.testing.assert_allclose(spreads([a, b, c], cohort, TAU), expected)
    np.testing.assert_allclose(
        spreads([a], cohort, TAU),
        [log(float(np.quantile(match(cohort, a, TAU), 0.05))), log(float(match(a, a, TAU).mean()))],
    )


def test_many_clips_of_a_category_take_no_gigabytes() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 3, 128)).astype(np.float32)
    clips = list(rows / np.linalg.norm(rows, axis=-1, keepdims=True))
    tracemalloc.start()
    spreads(clips, clips[0], 0.07)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # copies of nearly everything for every clip were 550 MB


def test_level_and_margin_are_the_calibrations_formula() -> None:
    calibration = {
        "cohort": units(50, 9).astype(np.float16),
        "level": np.array([-0.3, 0.6, 0.2, 0.1]),
        "level_one": np.array([-0.1, 0.9, 0.3]),
        "margin": np.array([[1, 2.0], [4, 1.5]]),
    }
    clips = [units(5, k, 0.3) for k in range(3)]
    cohort = calibration["cohort"].astype(np.float32)
    x = spreads(clips, cohort, TAU)
    assert level_of(clips, calibration, TAU) == pytest.approx(np.exp(-0.3 + 0.6 * x[0] + 0.2 * x[1] + 0.1 * x[2]))
    x = spreads(clips[:2], cohort, TAU)
    assert level_of(clips[:2], calibration, TAU) == pytest.approx(np.exp(-0.3 + 0.6 * x[0] + 0.2 * x[1] + 0.1 * x[2]))
    x = spreads(clips[:1], cohort, TAU)
    assert level_of(clips[:1], calibration, TAU) == pytest.approx(np.exp(-0.1 + 0.9 * x[0] + 0.3 * x[1]))
    # Between measured numbers of clips on logarithms of both, beyond them the nearest.
    assert [margin_of(k, calibration) for k in (1, 4, 50)] == pytest.approx([2, 1.5, 1.5])
    assert margin_of(2, calibration) == pytest.approx((2 * 1.5) ** 0.5)


def test_the_threshold_follows_the_rates() -> None:
    rates = {"rates": np.array([[0.8, 20.0], [1.0, 5.0], [1.25, 1.25]])}
    assert threshold_of(rates) == 1 and threshold_of({}, "low") == 1
    assert threshold_of(rates, false_alarms=5) == pytest.approx(1)
    assert threshold_of(rates, "low", false_alarms=10) == pytest.approx(0.8**0.5)
    assert threshold_of(rates, false_alarms=0.1) == pytest.approx(1.25)
    assert threshold_of(rates, "low") > 1 > threshold_of(rates, "high")
    assert SENSITIVITY["low"] < SENSITIVITY["default"] < SENSITIVITY["high"]


def usual_by_hand(scores: list[float], expected: float, seen: list[float]) -> list[float]:
    """The rule of `TrackBaseline` for one track, a window at a time."""
    shift, spread, count, common, out = 0.0, 0.15, 6.0, seen[0] if seen else 1.0, []
    for s, part in zip(scores, seen, strict=True):
        above = math.log(s / expected) - 6 * max(common - part, 0) - shift
        out.append(expected * math.exp(above - min(spread - 0.15, 0.8 - shift) - 0.25 * 6 / count))
        weight = 0.1 if above > 0.5 else 1.0
        count = min(count + weight, 240)
        common += (part - common) / count
        shift = min(max(shift + weight / count * min(max(above, -0.3), 0.3), -0.8), 0.8)
        spread += weight / count * (min(abs(above), 0.5) - spread)
    return out


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.05, 5), st.floats(0.5, 1)), min_size=1, max_size=60),
    st.integers(1, 7),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_usual_in_any_batching_is_the_rule_a_window_at_a_time(
    windows: list[tuple[int, float, float]], batch: int
) -> None:
    slots = np.array([s for s, _, _ in windows])
    scores = np.array([x for _, x, _ in windows], np.float32)
    seen = np.array([part for _, _, part in windows])
    expected = np.where(slots == 1, 0.5, 0.7)
    usual, found = TrackBaseline(3), []
    for i in range(0, len(slots), batch):
        part = slice(i, i + batch)
        found += usual(slots[part], scores[part], expected[part], seen[part]).tolist()
    for slot in range(3):
        mine = slots == slot
        by_hand = usual_by_hand(scores[mine].astype(float).tolist(), 0.5 if slot == 1 else 0.7, seen[mine].tolist())
        np.testing.assert_allclose(np.array(found)[mine], by_hand, rtol=1e-4)


def test_a_long_watch_is_the_rule_too_bounds_memory_and_all() -> None:
    rng = np.random.default_rng(0)
    for level in (0.05, 0.7, 1.8):
        scores = (level * np.exp(rng.normal(0, 0.2, 1500))).astype(np.float32)
        usual, one = TrackBaseline(1), np.ones(1)
        found = [float(usual(np.array([0]), scores[i : i + 1], 0.6 * one, one)[0]) for i in range(len(scores))]
        by_hand = usual_by_hand(scores.astype(float).tolist(), 0.6, [1.0] * len(scores))
        np.testing.assert_allclose(found, by_hand, rtol=1e-4)


def test_people_who_repeat_themselves_closely_or_loosely_end_with_the_same_scores() -> None:
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(0, 0.15, 400))
    usual, one, whole = TrackBaseline(2), np.full(2, 0.6), np.ones(2)
    for x in noise:
        found = usual(np.arange(2), np.array([0.35 * x, 0.95 * x], np.float32), one, whole)
    assert found[0] == pytest.approx(found[1], rel=0.03) and found[0] == pytest.approx(0.6 * noise[-1], rel=0.1)
    # An anomaly stands out of either by as much.
    raised = usual(np.arange(2), np.array([0.35 * 2.5, 0.95 * 2.5], np.float32), one, whole)
    assert raised == pytest.approx(np.full(2, 0.6 * 2.5), rel=0.15)


def test_what_lasts_does_not_become_normal_and_a_new_track_begins_anew() -> None:
    usual = TrackBaseline(2)
    for _ in range(5000):
        found = usual(np.array([0]), np.array([3.0], np.float32), np.array([0.6]), np.ones(1))
    assert found[0] > 1
    usual.forget([0])
    fresh = TrackBaseline(2)
    score = np.array([0.5], np.float32)
    given = np.array([0]), score, np.array([0.6]), np.array([0.7])
    assert usual(*given) == fresh(*given)


def test_a_distance_of_nothing_or_by_a_rounding_less_spoils_no_level() -> None:
    usual, at = TrackBaseline(1), np.array([0])
    with np.errstate(all="raise"):
        for score in (0.0, -1e-7, 0.6):
            found = usual(at, np.array([score], np.float32), np.array([0.6]), np.ones(1))
    assert 0.3 < found[0] < 1


def test_a_limb_hidden_for_a_moment_is_no_alarm_and_one_that_always_is_costs_nothing() -> None:
    usual, one = TrackBaseline(2), np.full(2, 0.6)
    for _ in range(100):
        usual(np.arange(2), np.full(2, 0.6, np.float32), one, np.array([1.0, 0.8]))
    moment, always = usual(np.arange(2), np.full(2, 1.5, np.float32), one, np.array([0.8, 0.8]))
    assert always > 1.4 and moment == pytest.approx(always * np.exp(-6 * 0.2), rel=1e-3)


def test_only_categories_that_are_normal_here_count() -> None:
    here = NormalByStream({"gate*": ["walk", "nonsense"], "yard": ["nonsense"]}, ["walk", "wave"])
    assert [here.of(n).tolist() for n in ("gate1", "yard", "hall")] == [[True, False], [True, True], [True, True]]
    ordered = NormalByStream({"gate1": ["wave"], "gate*": ["walk"]}, ["walk", "wave"])
    assert ordered.of("gate1").tolist() == [False, True], "the first rule that fits holds"
    for n in range(3000):
        assert ordered.of(f"gate{n}").tolist() == [n != 1, n == 1]
    assert len(ordered._known) <= 1000, "names may come without end"
    assert here.rows([]).shape == (0, 2)
    distance = np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    found = Scorer(np.ones(2))(distance, np.stack([here.of("gate1"), here.of("hall")]))
    np.testing.assert_allclose(found.score, [0.9, 0.1])
    assert found.category.tolist() == [0, 1] and found.score.dtype == np.float32


def test_a_rule_that_is_not_as_it_was_meant_is_said_with_what_it_means_now() -> None:
    rules = {"gate*": ["walk", "nope"], "yard": ["nope"], "hall": [], "door": ["wave"]}
    assert NormalByStream(rules, ["walk", "wave"]).trouble == [
        "setting normal: 'gate*': 'nope' is not a category of the support; there are walk, wave",
        "setting normal: 'yard': 'nope' is not a category of the support, so all categories count as normal there;"
        " there are walk, wave",
        "setting normal: 'hall': no category is named, so all categories count as normal there; there are walk, wave",
    ]


def test_a_category_that_is_normal_on_no_stream_that_should_send_is_said() -> None:
    def said(rules: dict[str, list[str]], *streams: str) -> list[str]:
        return NormalByStream(rules, ["walk", "wave", "catch"], streams=streams).trouble

    rules = {"gate*": ["walk"], "dock": ["walk", "wave"]}
    assert said(rules, "dock", "gate1") == ["setting normal: 'catch' is normal on none of dock, gate1"]
    assert said(rules, "gate1") == ["setting normal: 'wave', 'catch' are normal on none of gate1"]
    assert said(rules) == said(rules, "gate1", "hall") == said({}, "dock") == []


def test_what_is_said_of_many_categories_stays_readable() -> None:
    names = [f"category-{n:03d}" for n in range(200)]
    (unknown, nowhere) = NormalByStream({"dock": ["nope", *names[:1]]}, names, streams=["dock"]).trouble
    assert "there are category-000, category-001" in unknown and "'category-001', 'category-002'" in nowhere
    assert max(len(unknown), len(nowhere)) < 400


def test_the_score_is_the_least_distance_in_units_of_its_limit() -> None:
    found = Scorer(np.array([0.5, 0.1]))(np.array([[0.25, 0.2], [0.5, 0.01]], np.float32))
    np.testing.assert_allclose(found.score, [0.5, 0.1], rtol=1e-6)
    assert found.category.tolist() == found.group.tolist() == [0, 1]


TRANSITIONS = np.array([[0, 1], [1, 2]])


def test_a_transition_excuses_where_both_its_categories_are_normal_and_counts_as_the_nearer() -> None:
    here = NormalByStream({"gate": ["a", "b"], "yard": ["b", "c"], "door": ["a", "c"]}, ["a", "b", "c"], TRANSITIONS)
    distance = np.array([[3.0, 2.0, 2.5, 0.4, 0.3]], np.float32)
    scorer = Scorer(np.ones(5), TRANSITIONS)
    for stream, score, group, category in (
        ("gate", 0.4, 3, 1),
        ("yard", 0.3, 4, 1),
        ("door", 2.5, 2, 2),
        ("hall", 0.3, 4, 1),
    ):
        found = scorer(distance, here.rows([stream]))
        assert (found.group[0], found.category[0]) == (group, category), stream
        assert found.score[0] == pytest.approx(score)
    # Nearer by its own limit: twice as far from a category with thrice the limit.
    assert Scorer(np.array([6.0, 2, 1, 9, 1]), TRANSITIONS)(distance).category.tolist() == [0]


def test_categories_are_together_where_a_rule_has_both_or_none_may_fit() -> None:
    names = ["a", "b", "c"]
    every = NormalByStream({"gate*": ["a", "b"]}, names).together()
    assert every.all(), "a stream that no rule fits has all"
    some = NormalByStream({"gate": ["a", "b"], "*": ["c", "nonsense"]}, names).together()
    assert some.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert NormalByStream({"gate": ["nonsense"], "*": ["c"]}, names).together().all(), "a rule left with none has all"
