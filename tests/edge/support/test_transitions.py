"""What lies between two normal categories: what is cut, between which, and how it is enrolled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.clip import Clip, save_clip
from edge.engine import Engine, embed, open_engine
from edge.motion import make_motion
from edge.score import level_of, margin_of
from edge.skeleton import CORE15
from edge.support.cache import FeatureCache
from edge.support.enrol import SupportSet, load_support
from edge.support.transitions import BLEND_S, TransitionPlan, chosen, paired, repeated, transition_windows


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(open_bundle(), max_batch=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("walk", "squat", "wave"):
        for k in range(2):
            save_clip(tmp_path / "support" / name / f"{k}.npz", make_motion(name, seconds=3, seed=k))
    return tmp_path / "support"


def load(root: Path, engine: Engine, **plan: object) -> SupportSet:
    transitions = TransitionPlan(**{"most": 100, **plan})  # type: ignore[arg-type]
    return load_support(root, open_bundle(), engine, FeatureCache(root.parent / "cache"), transitions=transitions)


def slide(start: float, speed: float, height: float, seconds: float) -> Clip:
    """Somebody stiff who slides along x."""
    joints = np.zeros((round(seconds * 30) + 1, 15, 3), np.float32)
    joints[..., 0] = start + speed * np.arange(len(joints))[:, None] / 30
    joints[..., 1] = height
    return Clip(joints, np.ones(joints.shape[:2], np.float32), 30.0)


def test_a_change_ends_one_action_blends_and_begins_the_other_where_the_first_stood() -> None:
    a, b = slide(0, 1, 1.0, 8), slide(50, -0.5, 2.0, 8)
    joints, visible = transition_windows(a, b, 48, 2.0)
    assert joints.shape == (8, 48, 15, 3) and visible.min() == 1
    for k in range(4):  # the change begins 36, 24, 12 and 0 frames into the window
        t = (np.arange(48) - 36 + 12 * k) / 24
        share = np.clip(t / BLEND_S, 0, 1)
        np.testing.assert_allclose(joints[k, :, 0, 1], 1 + share, atol=1e-4)
        np.testing.assert_allclose(
            joints[k, :, 0, 0], 8 + np.where(t < 0, t, 0) * (1 - share) - share * 0.5 * t, atol=1e-3
        )
    # And back: from where b ends.
    np.testing.assert_allclose(joints[4, [0, -1], 0, 1], [2, 1], atol=1e-4)
    assert joints[4, 36, 0, 0] == pytest.approx(46, abs=1e-3)


def test_the_second_action_faces_the_way_of_the_first() -> None:
    a, straight = make_motion("walk", seconds=5, seed=1), make_motion("squat", seconds=5, seed=2)
    turn = np.array([[np.cos(2), 0, np.sin(2)], [0, 1, 0], [-np.sin(2), 0, np.cos(2)]], np.float32)
    turned = Clip(straight.joints @ turn.T, straight.visible, straight.fps)
    joints, _ = transition_windows(a, straight, 48, 2.0)
    np.testing.assert_allclose(transition_windows(a, turned, 48, 2.0)[0][:4], joints[:4], atol=1e-4)
    hips = joints[:, :, [9, 12]]
    across = (hips[:, :, 1] - hips[:, :, 0])[..., [0, 2]]
    heading = np.unwrap(np.arctan2(across[3, :, 1], across[3, :, 0]))
    assert np.abs(np.diff(heading)).max() < 0.2, "nobody spins within the blend"
    blind = Clip(straight.joints, np.where(np.isin(np.arange(15), [6, 9]), 0, straight.visible), 30.0)
    assert np.isfinite(transition_windows(a, blind, 48, 2.0)[0]).all()


def test_a_short_clip_goes_round_and_a_hidden_joint_stays_hidden() -> None:
    a, b = make_motion("walk", seconds=1, seed=0), make_motion("wave", seconds=1, seed=1)
    b.visible[:, 5] = 0
    joints, visible = transition_windows(a, b, 48, 2.0)
    np.testing.assert_allclose(joints[0, :36], a.looped(1 + np.arange(-36, 0) / 24)[0], atol=1e-5)
    assert visible[3, -1, 5] == 0 and visible[3, -1, 4] == 1 and visible[0, 0, 5] == 1


def test_where_a_round_ended_is_held_while_the_other_action_begins() -> None:
    joints = np.zeros((31, 15, 3), np.float32)
    joints[..., 1] = np.linspace(1, 3, 31)[:, None]
    a, b = Clip(joints, np.ones((31, 15), np.float32), 30.0), slide(0, 0, 9.0, 8)
    heights = transition_windows(a, b, 48, 2.0)[0][3, :, 0, 1]
    share = np.clip(np.arange(48) / 24 / BLEND_S, 0, 1)
    np.testing.assert_allclose(heights, a.looped(np.array([1.0]))[0][0, 0, 1] * (1 - share) + 9 * share, atol=1e-4)


def test_hidden_joints_do_not_say_where_somebody_stands_or_looks() -> None:
    a, b = slide(0, 0, 1.0, 8), slide(50, 0, 2.0, 8)
    left, right = CORE15.index("l_hip"), CORE15.index("r_hip")
    for clip, way in ((a, 1), (b, -1)):  # b faces the other way, by the hips; the shoulders of one are hidden
        clip.joints[:, left, 0] -= way * 0.1
        clip.joints[:, right, 0] += way * 0.1
    b.joints[:, 5], b.visible[:, 5] = 77, 0
    for joint in ("l_shoulder", "r_shoulder"):
        b.joints[:, CORE15.index(joint)] += 5 * (joint[0] == "l")
    a.visible[:, CORE15.index("l_shoulder")] = 0
    joints, visible = transition_windows(a, b, 48, 2.0)
    last = joints[3, -1]
    assert visible[3, -1, 5] == 0 and last[0, 0] == pytest.approx(5 / 14, abs=1e-4)
    assert last[left, 0] == pytest.approx(last[right, 0] - 0.2, abs=1e-4), "turned round, to face as the first does"


def test_clips_are_paired_evenly_and_the_fewer_come_again() -> None:
    assert paired("a", "x") == [("a", "x")]
    assert paired("ab", "xyz") == [("a", "x"), ("b", "y"), ("a", "z")]
    assert paired("abcdefg", "xy") == [("a", "x"), ("d", "y"), ("g", "x")]
    # Of one category: no pair comes twice, which would look as if people repeated each other exactly.
    assert repeated("a") == [("a", "a")] and repeated("ab") == [("a", "a"), ("b", "b")]
    assert repeated("abcdefg") == [("a", "d"), ("d", "g"), ("g", "a")]


def test_pairs_that_no_stream_has_together_are_left_out_and_of_too_many_the_like_ones() -> None:
    names = ("a", "b", "c")
    centre = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    rules = {"gate": ["a", "b"], "*": ["c"]}
    assert chosen(TransitionPlan(rules, 9), names, centre)[0].tolist() == [[0, 0], [0, 1], [1, 1], [2, 2]]
    assert len(chosen(TransitionPlan({}, 9), names, centre)[0]) == 6
    assert chosen(TransitionPlan({}, 6), names, centre)[1] == [], "none is left out"
    rows, (said,) = chosen(TransitionPlan({}, 2), names, centre)
    assert rows.tolist() == [[0, 2], [1, 2]] and "2 of 6 pairs" in said and "max_transitions is 2" in said
    rows, (said,) = chosen(TransitionPlan({}, 9, room=4), names, centre)
    assert rows.tolist() == [[0, 2]] and "room for 4" in said
    assert chosen(TransitionPlan({}, 9, room=3), names, centre)[0].shape == (0, 2)
    assert chosen(TransitionPlan({}, 9, room=2), names, centre)[0].shape == (0, 2)
    # Alike is what points the same way, whatever its length; and pairs come in the order of their categories.
    away = np.array([[9, 0], [0.1, 0], [0, 5]], np.float32)
    assert chosen(TransitionPlan({}, 3), names, away)[0].tolist() == [[0, 0], [0, 2], [1, 2]]
    rows, problems = chosen(TransitionPlan({}, 0), names, centre)
    assert len(rows) == 0 and not problems, "who wants none is not told that there are none"


def test_what_lies_between_is_a_group_of_the_support_with_a_limit_by_the_usual_rule(
    folder: Path, engine: Engine
) -> None:
    plain, support = load(folder, engine, most=0), load(folder, engine)
    assert support.names == plain.names == ("squat", "walk", "wave")
    assert (
        support.transitions.tolist() == [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]] and len(support.features) == 9
    )
    n = plain.features.shape[1]
    np.testing.assert_array_equal(support.features[:3, :n], plain.features)
    np.testing.assert_allclose(support.limit[:3], plain.limit)
    clips = []
    for k in range(2):
        a, b = make_motion("squat", seconds=3, seed=k), make_motion("walk", seconds=3, seed=k)
        clips.append(embed(engine, *transition_windows(a, b, 48, 2.0)))
    np.testing.assert_allclose(support.features[4][support.mask[4] > 0], np.concatenate(clips), atol=1e-5)
    m, calibration = open_bundle().manifest, open_bundle().calibration()
    expected = level_of(clips, calibration, m.temperature) * margin_of(2, calibration)
    assert support.limit[4] == pytest.approx(expected, rel=1e-4)
    assert support.version != plain.version and support.usual[4] == pytest.approx(1 / margin_of(2, calibration))


def test_a_calibration_moves_what_lies_between_by_the_mean_of_both(folder: Path, engine: Engine) -> None:
    support = load(folder, engine)
    moved = support.moved(np.array([4.0, 1.0, 0.25]))
    np.testing.assert_allclose(moved.limit / support.limit, [4, 1, 0.25, 4, 2, 1, 1, 0.5, 0.25])


def test_another_clip_embeds_only_its_own_pairs(folder: Path, engine: Engine) -> None:
    load(folder, engine)
    cache = folder.parent / "cache"

    def embedded() -> set[str]:  # and not how somebody stands, which is kept of every clip
        return {p.name for p in cache.iterdir() if not p.name.startswith("p")}

    before = embedded()
    assert len(before) == 6 + 3 * 2 + 3 * 2
    save_clip(folder / "walk" / "2.npz", make_motion("walk", seconds=3, seed=2))
    support = load(folder, engine)
    # The new one itself, its pairs with a clip of each of the two others, and each walk with the next.
    assert len(embedded() - before) == 1 + 2 + 3 and support.shots == (2, 3, 2)


def test_a_clip_that_changes_meanwhile_leaves_the_categories_as_they_are(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = Path.read_bytes, set[Path]()

    def once(path: Path) -> bytes:
        data = read(path)
        if folder in path.parents and path not in seen:
            seen.add(path)
            save_clip(path, make_motion("fall", seconds=3, seed=9))
        return data

    monkeypatch.setattr(Path, "read_bytes", once)
    support = load(folder, engine)
    assert support.names == ("squat", "walk", "wave") and len(support.transitions) == 0 and len(support.limit) == 3
    assert any("was changed while the folder was read" in p for p in support.problems)
