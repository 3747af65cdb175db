"""Layouts: joint orders as their sources print them, mapping onto core15, masks, and image keypoints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ClipError
from edge.ingest.mapping import core15
from edge.skeleton import CORE15, LAYOUTS, MIRROR, PARENTS, at_origin, cleaned, get_layout, lift, mask_bad

AT = {name: i for i, name in enumerate(CORE15)}

# core15 in its own order, written out again from each layout's published figure: an index, or index → weight.
_COCO_LIMBS = (5, 7, 9, 6, 8, 10, 11, 13, 15, 12, 14, 16)
_HIPS, _SHOULDERS, _FACE = {11: 0.5, 12: 0.5}, {5: 0.5, 6: 0.5}, {3: 0.3, 4: 0.3, 0: 0.4}
_SMPL = (0, 12, 15, 16, 18, 20, 17, 19, 21, 1, 4, 7, 2, 5, 8)
ORDER: dict[str, tuple[int | dict[int, float], ...]] = {
    "core15": tuple(range(15)),
    "coco17": (_HIPS, _SHOULDERS, _FACE, *_COCO_LIMBS),
    "halpe26": (19, 18, _FACE, *_COCO_LIMBS),
    "body25": (8, 1, {18: 0.3, 17: 0.3, 0: 0.4}, 5, 6, 7, 2, 3, 4, 12, 13, 14, 9, 10, 11),
    "mediapipe33": (
        {23: 0.5, 24: 0.5}, {11: 0.5, 12: 0.5}, {7: 0.3, 8: 0.3, 0: 0.4},
        11, 13, 15, 12, 14, 16, 23, 25, 27, 24, 26, 28,
    ),
    "smpl24": _SMPL,
    "smpl22": _SMPL,
    "h36m17": (0, 8, {9: 0.5, 10: 0.5}, 11, 12, 13, 14, 15, 16, 4, 5, 6, 1, 2, 3),
    "ntu25": (0, 20, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18),
    "kinect20": (0, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18),
}  # fmt: skip
SIZE = {
    "core15": 15, "coco17": 17, "halpe26": 26, "body25": 25, "mediapipe33": 33,
    "smpl24": 24, "smpl22": 22, "h36m17": 17, "ntu25": 25, "kinect20": 20,
}  # fmt: skip
NAMES = sorted(ORDER)


def places(size: int) -> np.ndarray:
    """(size, 3): no two joints, nor any two blends of them, at the same place."""
    return np.random.default_rng(size).uniform(-2, 2, (size, 3)).astype(np.float32)


def needs(layout: str, joint: str) -> dict[int, float]:
    """The foreign joints that stand for a core15 joint, with their weights."""
    rule = ORDER[layout][AT[joint]]
    return {rule: 1.0} if isinstance(rule, int) else rule


def test_core15_is_the_documented_list() -> None:
    assert CORE15 == (
        "pelvis", "neck", "head", "l_shoulder", "l_elbow", "l_wrist", "r_shoulder", "r_elbow", "r_wrist",
        "l_hip", "l_knee", "l_ankle", "r_hip", "r_knee", "r_ankle",
    )  # fmt: skip
    assert set(LAYOUTS) == set(ORDER)


def test_bones_join_neighbours_and_the_pelvis_is_the_root() -> None:
    bones = {CORE15[i]: CORE15[p] if p >= 0 else None for i, p in enumerate(PARENTS)}
    assert bones == {
        "pelvis": None, "neck": "pelvis", "head": "neck",
        "l_shoulder": "neck", "l_elbow": "l_shoulder", "l_wrist": "l_elbow",
        "r_shoulder": "neck", "r_elbow": "r_shoulder", "r_wrist": "r_elbow",
        "l_hip": "pelvis", "l_knee": "l_hip", "l_ankle": "l_knee",
        "r_hip": "pelvis", "r_knee": "r_hip", "r_ankle": "r_knee",
    }  # fmt: skip


def test_the_mirror_swaps_left_and_right_and_nothing_else() -> None:
    swapped = [CORE15[i] for i in MIRROR]
    exchange = {"l_": "r_", "r_": "l_"}
    assert swapped == [exchange.get(name[:2], name[:2]) + name[2:] for name in CORE15]


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_has_its_published_size_and_no_joint_twice(name: str) -> None:
    layout = LAYOUTS[name]
    assert (layout.name, layout.size, len(set(layout.joints))) == (name, SIZE[name], SIZE[name])
    assert layout.source


@pytest.mark.parametrize(
    ("layout", "index", "joint"),
    [
        ("coco17", 0, "nose"), ("coco17", 3, "l_ear"), ("coco17", 9, "l_wrist"), ("coco17", 16, "r_ankle"),
        ("halpe26", 17, "head_top"), ("halpe26", 18, "neck"), ("halpe26", 19, "hip"), ("halpe26", 25, "r_heel"),
        ("body25", 4, "r_wrist"), ("body25", 8, "mid_hip"), ("body25", 18, "l_ear"), ("body25", 22, "r_big_toe"),
        ("mediapipe33", 7, "l_ear"), ("mediapipe33", 15, "l_wrist"), ("mediapipe33", 32, "r_foot_index"),
        ("smpl24", 20, "l_wrist"), ("smpl24", 15, "head"), ("smpl24", 22, "l_hand"), ("smpl22", 21, "r_wrist"),
        ("h36m17", 11, "l_shoulder"), ("h36m17", 1, "r_hip"), ("h36m17", 9, "nose"),
        ("ntu25", 20, "neck"), ("ntu25", 2, "neck_upper"), ("ntu25", 24, "r_thumb"), ("ntu25", 10, "r_wrist"),
        ("kinect20", 5, "l_elbow"), ("kinect20", 2, "neck"), ("kinect20", 19, "r_foot"),
    ],
)  # fmt: skip
def test_joint_indices_agree_with_the_published_figure(layout: str, index: int, joint: str) -> None:
    assert LAYOUTS[layout].joints[index] == joint


@pytest.mark.parametrize("name", NAMES)
def test_every_joint_arrives_at_its_known_place(name: str) -> None:
    at = places(SIZE[name])
    core, visible = LAYOUTS[name].to_core15(at, np.ones(SIZE[name], np.float32))
    assert core.shape == (15, 3) and core.dtype == np.float32 and visible.dtype == np.float32
    for row, joint in enumerate(CORE15):
        expected = sum(w * at[i].astype(float) for i, w in needs(name, joint).items())
        np.testing.assert_allclose(core[row], expected, atol=1e-6, err_msg=joint)
    np.testing.assert_allclose(visible, 1, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_people_are_mapped_one_by_one(name: str) -> None:
    rng = np.random.default_rng(1)
    joints = rng.normal(size=(4, 3, SIZE[name], 3)).astype(np.float32)
    visible = rng.integers(0, 2, (4, 3, SIZE[name])).astype(np.float32)
    core, seen = LAYOUTS[name].to_core15(joints, visible)
    assert core.shape == (4, 3, 15, 3) and seen.shape == (4, 3, 15)
    one, one_seen = LAYOUTS[name].to_core15(joints[2, 1], visible[2, 1])
    np.testing.assert_allclose(core[2, 1], one, atol=1e-6)
    np.testing.assert_allclose(seen[2, 1], one_seen, atol=1e-6)
    empty, none = LAYOUTS[name].to_core15(joints[:0], visible[:0])
    assert empty.shape == (0, 3, 15, 3) and none.shape == (0, 3, 15)


@pytest.mark.parametrize("name", NAMES)
def test_hiding_a_joint_hides_exactly_what_needs_more_than_half_of_it(name: str) -> None:
    at = places(SIZE[name])
    for hidden in range(SIZE[name]):
        visible = np.ones(SIZE[name], np.float32)
        visible[hidden] = 0
        core, seen = LAYOUTS[name].to_core15(at, visible)
        for row, joint in enumerate(CORE15):
            left = {i: w for i, w in needs(name, joint).items() if i != hidden}
            weight = sum(left.values())
            if weight > 0.5:
                assert seen[row] == pytest.approx(weight), joint
                expected = sum(w * at[i].astype(float) for i, w in left.items()) / weight
                np.testing.assert_allclose(core[row], expected, atol=1e-6, err_msg=joint)
            else:
                assert seen[row] == 0 and (core[row] == 0).all(), joint


def test_a_neck_needs_both_shoulders_and_a_head_survives_a_hidden_ear() -> None:
    coco = LAYOUTS["coco17"]
    at = places(17)
    visible = np.ones(17, np.float32)
    visible[[3, 5]] = 0  # left ear, left shoulder
    core, seen = coco.to_core15(at, visible)
    assert seen[AT["neck"]] == 0 and seen[AT["l_shoulder"]] == 0 and seen[AT["r_shoulder"]] == 1
    np.testing.assert_allclose(core[AT["head"]], (0.3 * at[4] + 0.4 * at[0]) / 0.7, atol=1e-6)
    visible[4] = 0  # a nose alone is no head
    assert coco.to_core15(at, visible)[1][AT["head"]] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_hidden_person_is_zeros_and_a_mask(name: str) -> None:
    core, seen = LAYOUTS[name].to_core15(places(SIZE[name]), np.zeros(SIZE[name], np.float32))
    assert (core == 0).all() and (seen == 0).all()


def test_an_unknown_layout_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ClipError, match="coco18") as e:
        get_layout("coco18")
    assert all(name in str(e.value) for name in NAMES)
    assert get_layout("ntu25") is LAYOUTS["ntu25"]


def test_image_keypoints_turn_upright_in_image_heights() -> None:
    pixels = np.array([[0, 0], [1920, 1080], [960, 270]], float)
    got = lift(pixels, (1920, 1080))
    np.testing.assert_allclose(got, [[0, 1, 0], [1920 / 1080, 0, 0], [960 / 1080, 0.75, 0]], rtol=1e-6)
    assert got.dtype == np.float32


def test_without_a_size_pixels_stay_pixels_but_y_points_up() -> None:
    np.testing.assert_array_equal(lift(np.array([[[3.0, 40.0]]])), [[[3, -40, 0]]])


def test_three_dimensions_pass_unchanged_whatever_the_size() -> None:
    at = places(15)
    np.testing.assert_array_equal(lift(at, (640, 480)), at)
    np.testing.assert_array_equal(lift(at.astype(float)), at)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30, 1e6])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_joint_at_no_real_place_is_hidden_and_counted(bad: float, axis: int) -> None:
    joints = np.stack([places(15), places(15)])
    joints[1, 4, axis] = bad
    before = joints.copy()
    clean, visible, count = mask_bad(joints, None)
    assert count == 1 and visible[1, 4] == 0 and visible.sum() == 29
    assert (clean[1, 4] == 0).all() and np.isfinite(clean).all()
    np.testing.assert_array_equal(clean[0], joints[0])
    np.testing.assert_array_equal(joints, before)


def test_confidence_decides_from_the_limit_upwards_and_nan_is_none() -> None:
    confidence = np.array([0.0, 0.29, 0.3, 0.31, 1.0, np.nan, -1.0, 250.0], np.float32)
    _, visible, bad = mask_bad(places(8), confidence, float(np.float32(0.3)))
    assert visible.tolist() == [0, 0, 1, 1, 1, 0, 0, 1] and bad == 0
    assert mask_bad(places(8), confidence, 0.9)[1].tolist() == [0, 0, 0, 0, 1, 0, 0, 1]


def test_a_bad_place_that_nobody_claims_to_see_is_not_counted() -> None:
    joints = places(3)
    joints[1], joints[2, 0] = np.nan, np.inf
    clean, visible, bad = mask_bad(joints, np.array([1, 0, 1], np.float32))
    assert bad == 1 and visible.tolist() == [1, 0, 0] and (clean[1:] == 0).all()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.sampled_from([2, 3]),
    st.binary(min_size=1, max_size=64),
    st.sampled_from([None, (1.0, 1.0), (1920.0, 1080.0)]),
)
def test_whatever_bits_come_in_finite_numbers_come_out(
    name: str, c: int, bits: bytes, size: tuple[float, float] | None
) -> None:
    """Any float32 bit pattern, signalling NaNs and subnormals included, and never a warning."""
    count = SIZE[name] * (c + 1)
    numbers = np.frombuffer((bits * (4 * count))[: 4 * count], "<f4")
    joints, confidence = numbers[: SIZE[name] * c].reshape(1, -1, c), numbers[SIZE[name] * c :].reshape(1, -1)
    with np.errstate(all="raise", under="ignore"):
        clean, visible, bad = mask_bad(lift(joints, size), confidence)
    core, seen = LAYOUTS[name].to_core15(clean, visible)
    assert np.isfinite(core).all() and 0 <= bad <= SIZE[name]
    assert ((seen == 0) | (seen > 0.5)).all() and (seen <= 1 + 1e-6).all()
    assert (core[seen == 0] == 0).all()


def test_only_joints_at_the_very_origin_and_two_of_them_at_least_were_not_found() -> None:
    joints = places(17) + 1
    joints[[3, 5]] = 0
    found = at_origin(joints)
    assert found is not None and np.flatnonzero(found).tolist() == [3, 5], "and nothing else is zero anywhere"
    joints[[3, 5], 2] = 2.0
    joints[:, :2] = 0
    assert at_origin(joints) is None, "all on the camera's axis, at some depth"


@pytest.mark.parametrize("value", [2e6, -2e6])
@pytest.mark.parametrize("size", [None, (640.0, 480.0)])
def test_people_of_impossible_coordinates_are_told_by_the_units_of_the_layout(
    value: float, size: tuple[float, float] | None
) -> None:
    """Of joints in space a size says nothing; on an image with a size the unit is its height."""
    for c in (2, 3):
        joints = np.ones((2, 17, c), np.float32)
        joints[1, 4, 0] = value
        mapped, visible, bad = core15(joints, None, LAYOUTS["coco17"], size)
        slow = LAYOUTS["coco17"].to_core15(*cleaned(joints, None, size)[:2])
        np.testing.assert_allclose(mapped, slow[0], rtol=1e-6)
        np.testing.assert_allclose(visible, slow[1], rtol=1e-6)
        assert (None if bad is None else bad.tolist()) == (None if c == 2 and size else [0, 1])


def test_a_joint_that_was_not_found_makes_no_other_one_surer() -> None:
    joints, confidence = np.ones((1, 17, 3), np.float32), np.ones((1, 17), np.float32)
    joints[0, [3, 5]] = 0
    confidence[0, [9, 10]] = 0.1, 0.3  # just the least counts
    _, visible, bad = core15(joints, confidence, LAYOUTS["coco17"])
    assert bad is not None and bad.tolist() == [2]
    assert visible[0, CORE15.index("l_wrist")] == 0 and visible[0, CORE15.index("r_wrist")] == 1


@pytest.mark.parametrize("c", [2, 3])
@pytest.mark.parametrize("size", [None, (640.0, 480.0)])
def test_two_joints_at_the_origin_were_not_found_and_one_may_be_where_the_rest_is_measured_from(
    c: int, size: tuple[float, float] | None
) -> None:
    rng = np.random.default_rng(c)
    joints = rng.uniform(1, 400, (4, 17, c)).astype(np.float32)
    joints[1, 3] = 0
    joints[2, [3, 5]] = 0
    joints[3] = 0
    confidence = np.ones((4, 17), np.float32)
    confidence[2, 5] = 0.1
    for claimed, counted in ((None, 2 + 17), (confidence, 1 + 17)):
        _, seen, bad = cleaned(joints, claimed, size)
        expected = np.ones((4, 17))
        expected[2, [3, 5]] = expected[3] = 0
        np.testing.assert_array_equal(seen, expected)
        assert bad == counted
        mapped, visible, by_person = core15(joints, claimed, LAYOUTS["coco17"], size)
        slow = LAYOUTS["coco17"].to_core15(*cleaned(joints, claimed, size)[:2])
        np.testing.assert_allclose(mapped, slow[0], atol=1e-6)
        np.testing.assert_array_equal(visible, slow[1])
        assert by_person is not None and by_person.sum() == counted
    joints[2:] = 1.0
    assert at_origin(joints) is None and cleaned(joints, None, size)[2] == 0
