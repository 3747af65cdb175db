"""Alerts that are alike are found, among many and as they come; memory is bounded."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.alerts.alike import NEAR, Earlier, alike, near_of
from edge.bundle import open_bundle
from edge.clip import save_clip
from edge.engine import open_engine
from edge.motion import make_motion
from edge.skeleton import Float
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from tests.edge.harness import HeightEngine, bench, message, person, support_of


def directions(*degrees: float) -> Float:
    a = np.deg2rad(degrees)
    return np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32)


def within(degrees: float) -> float:
    """The cosine distance of an angle."""
    return float(1 - np.cos(np.deg2rad(degrees)))


def test_the_middle_of_a_group_is_the_one_that_has_most_others_near() -> None:
    assert alike(directions(0, 90, 10, 20, 91, 180), within(11)) == [[2, 0, 3], [1, 4], [5]]
    assert alike(directions(0, 90), 0.0) == [[0], [1]]
    assert alike(directions(*[7] * 9), 0.0) == [list(range(9))]


@given(st.lists(st.integers(0, 359), min_size=1, max_size=25), st.floats(0, 1))
@settings(max_examples=60)
def test_each_is_in_one_group_and_near_its_middle_and_groups_shrink(degrees: list[int], near: float) -> None:
    v = directions(*degrees)
    groups = alike(v, near)
    assert sorted(i for g in groups for i in g) == list(range(len(v)))
    assert sorted(map(len, groups), reverse=True) == [len(g) for g in groups]
    for middle, *others in groups:
        d = 1 - v[others] @ v[middle]
        assert (d <= near + 1e-5).all() and (np.diff(d) >= -1e-5).all()


def test_near_is_a_share_of_the_categories_median_limit() -> None:
    assert near_of(np.array([0.1, 0.9, 0.2])) == pytest.approx(NEAR * 0.2)


def test_a_later_alert_names_the_first_of_its_kind_on_its_stream() -> None:
    earlier, v = Earlier(5), directions(0, 10, 20, 90, 12)
    near = within(11)
    assert earlier.like("hall", "a", 10, v[0], near) == ""
    assert earlier.like("hall", "b", 20, v[1], near) == "a"
    assert earlier.like("hall", "c", 30, v[2], near) == "a", "near b, which is like a"
    assert earlier.like("hall", "d", 40, v[3], near) == ""
    assert earlier.like("gate", "e", 50, v[4], near) == "", "another place"
    assert earlier.like("hall", "b", 60, v[3], near) == "a", "the answer about an alert stays"
    assert earlier.like("gate", "f", 56, v[4], near) == "e"


def test_those_of_about_the_same_time_are_not_compared_and_of_equals_the_first_counts() -> None:
    earlier, v, near = Earlier(5), directions(0, 90), within(11)
    assert earlier.like("hall", "late", 13, v[0], near) == ""
    assert earlier.like("hall", "early", 8, v[0], near) == "", "it came after the later one"
    assert earlier.like("hall", "now", 13, v[0], near) == ""
    assert earlier.like("hall", "then", 30, v[0], near) == "early"
    assert earlier.like("hall", "now", 99, v[1], near) == ""


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.alike.REMEMBERED", 3)
    earlier, v = Earlier(0), directions(*range(0, 360, 30))
    for k in range(8):
        earlier.like(f"s{k % 2}", str(k), k, v[k], 0.01)
    assert {k.id for known in earlier._known.values() for k in known} == {"5", "6", "7"}
    assert earlier.like("s0", "8", 8, v[0], 0.01) == "" and earlier.like("s0", "9", 9, v[6], 0.01) == "6"
    for k in range(4):
        earlier.like("new", f"n{k}", k, v[k], 0.01)
    assert list(earlier._known) == ["new"] and len(earlier._order) == 3


def test_an_alert_that_was_forgotten_and_goes_on_is_not_like_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.alike.REMEMBERED", 2)
    earlier, v = Earlier(0), directions(0, 90)
    likes = [earlier.like("hall", id, k, v[k // 2 % 2], 0.01) for k, id in enumerate("abcd")]
    assert likes == ["", "a", "", "c"]
    assert earlier.like("hall", "c", 4, v[1], 0.01) == ""
    likes = [earlier.like("hall", id, k, v[0], 0.01) for k, id in enumerate("efe", 5)]
    assert likes == ["", "e", ""]
    likes = [earlier.like("hall", id, k, v[0], 0.01) for k, id in enumerate("ghe", 8)]
    assert likes == ["e", "e", ""], "e was forgotten, but not that the others are like it"


class Alike(HeightEngine):
    """All windows point the same way."""

    def run(self, n: int) -> tuple[Float, Float]:
        embedding, distance = super().run(n)
        embedding[:, 0] = 1
        return embedding, distance


@pytest.mark.parametrize("seed", [1, 5, 16, 17, 22])
def test_the_same_recording_gives_the_same_likes_however_it_is_drained(seed: int) -> None:
    dice, people = random.Random(seed), []
    for k in range(8):
        since, lasts, height = dice.uniform(0, 8), dice.uniform(2.5, 6), dice.choice([0, 1.15, 1.25, 1.5, 2.0])
        unseen = since + dice.uniform(0, lasts) if dice.random() < 0.4 else 99
        pose = person(height) + np.array([10 * k, 0, 0], np.float32)
        people.append((since, since + lasts, unseen, pose))
    found, frames = [], []
    for n in range(14 * 24):
        t = n / 24
        there = {k: x[3] for k, x in enumerate(people) if x[0] <= t < x[1] and not x[2] <= t < x[2] + 0.7}
        frames.append(message("hall", n, 5 + t, there))
    for chunk in (1, 3, 40, 1000):
        b = bench(Alike()).play(frames, chunk)
        found.append(sorted((a.id, a.start, a.like) for a in b.sink.alerts() if a.type == "new"))
    assert found[0] == found[1] == found[2] == found[3]
    assert any(like for _, _, like in found[0])


def test_alerts_are_alike_within_one_stream_and_by_the_limits_of_categories_alone() -> None:
    support = replace(support_of("calm"), limit=np.array([1.0, 0.2, 0.2]))  # two pairs behind the category
    b = bench(Alike(), support)
    assert b.runtime._near == near_of(np.array([1.0]))
    b.play([message(s, n, at + n / 24, {7: person(2.0)}) for s, at in (("hall", 5), ("gate", 30)) for n in range(99)])
    assert [a.like for a in b.sink.alerts() if a.type == "new"] == ["", ""]


def test_the_engine_names_the_alert_that_a_new_one_repeats(tmp_path: Path) -> None:
    """Somebody walks, lifts a box twice and waves once: lifting and waving are no part of the support."""
    bundle = open_bundle()
    engine = open_engine(bundle)
    for n in range(3):
        save_clip(tmp_path / "support" / "walk" / f"{n}.npz", make_motion("walk", seconds=5, seed=n))
    support = load_support(tmp_path / "support", bundle, engine, FeatureCache(tmp_path / "cache"))
    b = bench(engine, support, bundle=bundle, track_timeout=0.5)
    plays = [("lift_box", 60), ("lift_box", 60), ("wave", 62), ("lift_box", 60)]
    for k, (action, seed) in enumerate(plays):
        joints = make_motion(action, seconds=6, fps=24, seed=seed).joints
        b.play([message("hall", 1000 * k + n, 10 + 20 * k + n / 24, {k: pose}) for n, pose in enumerate(joints)])
    new = [a for a in b.sink.alerts() if a.type == "new"]
    first = {a.track: a.id for a in reversed(new)}
    likes = {(a.track, a.like) for a in new}
    assert {t for t, _ in likes} == {0, 1, 2, 3}
    assert (1, first[0]) in likes and (3, first[0]) in likes and (0, "") in likes
    assert not {like for t, like in likes if t == 2} & {first[0], first[1]}
    assert all(a.like == next(n.like for n in new if n.id == a.id) for a in b.sink.alerts())
