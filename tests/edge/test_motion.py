"""Made motion: shaped like a person, on the floor, and a function of time and seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge.clip import Clip, load_clip, save_clip
from edge.errors import ClipError
from edge.motion import HEIGHT_M, MOTIONS, NOISE_M, RADIUS_M, make_motion
from edge.skeleton import CORE15, PARENTS

NAMES = tuple(MOTIONS)
AT = {name: i for i, name in enumerate(CORE15)}
CHILDREN = np.arange(1, 15)
SEEDS = (0, 1, 2, 3, 4, 5)


def facing(joints: np.ndarray) -> np.ndarray:
    """Where the hips point, (T, 3) unit vectors: up cross (left hip → right hip); -z when left is -x."""
    ahead = np.cross([0.0, 1.0, 0.0], joints[:, AT["r_hip"]] - joints[:, AT["l_hip"]])
    return ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)


def speed(clip: Clip) -> np.ndarray:
    """(T-1, 15) metres per second."""
    return np.linalg.norm(np.diff(clip.joints.astype(float), axis=0), axis=-1) * clip.fps


def test_there_are_the_promised_motions() -> None:
    assert set(NAMES) == {
        "stand", "walk", "wave", "clap", "pick_up", "lift_box", "sit_down", "squat", "jog", "fall",
    }  # fmt: skip


@pytest.mark.parametrize("fps", [15, 60])
@pytest.mark.parametrize("seconds", [2, 10])
@pytest.mark.parametrize("name", NAMES)
def test_every_motion_is_a_whole_clip_of_the_asked_length(name: str, seconds: int, fps: int) -> None:
    clip = make_motion(name, seconds=seconds, fps=fps, seed=3)
    assert clip.joints.shape == (seconds * fps + 1, 15, 3) and clip.joints.dtype == np.float32
    assert np.isfinite(clip.joints).all() and (clip.visible == 1).all() and clip.visible.dtype == np.float32
    assert clip.seconds == seconds and clip.fps == fps
    assert clip.subject == "made3" and clip.source == "haad-edge kinematic formulas"


@pytest.mark.parametrize("name", NAMES)
def test_it_does_not_depend_on_the_frame_rate_or_the_length(name: str) -> None:
    fine = make_motion(name, seconds=4, fps=60, seed=2).joints
    for fps in (15, 30):
        coarse = make_motion(name, seconds=4, fps=fps, seed=2).joints
        np.testing.assert_allclose(fine[:: 60 // fps], coarse, atol=1e-5)
    short = make_motion(name, seconds=2, fps=60, seed=2).joints
    np.testing.assert_allclose(fine[:121], short, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything(name: str) -> None:
    one, same, other = (make_motion(name, seconds=2, seed=s).joints for s in (7, 7, 8))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_bones_keep_their_length_but_for_the_noise(name: str) -> None:
    for seed in SEEDS:
        joints = make_motion(name, seconds=4, seed=seed).joints.astype(float)
        bones = np.linalg.norm(joints[:, CHILDREN] - joints[:, np.array(PARENTS)[1:]], axis=-1)
        assert np.abs(bones - np.median(bones, 0)).max() < 4 * NOISE_M
        left, right = bones[:, [2, 3, 4, 8, 9, 10]].mean(0), bones[:, [5, 6, 7, 11, 12, 13]].mean(0)
        np.testing.assert_allclose(left, right, atol=NOISE_M)


def test_people_differ_in_size_and_one_person_keeps_it() -> None:
    def thigh(name: str, seed: int) -> float:
        joints = make_motion(name, seconds=10, seed=seed).joints
        return float(np.linalg.norm(joints[:, AT["l_knee"]] - joints[:, AT["l_hip"]], axis=-1).mean())

    lengths = np.array([thigh("stand", seed) for seed in range(30)])
    assert np.abs(lengths / (0.245 * HEIGHT_M) - 1).max() < 0.09 and np.ptp(lengths) > 0.03
    assert thigh("squat", 4) == pytest.approx(thigh("walk", 4), abs=NOISE_M)


@pytest.mark.parametrize("name", NAMES)
def test_it_stands_on_the_floor_and_moves_no_faster_than_people(name: str) -> None:
    for seed in SEEDS:
        clip = make_motion(name, seconds=6, fps=60, seed=seed)
        ankles = clip.joints[:, [AT["l_ankle"], AT["r_ankle"]], 1]
        assert ankles.min() > -0.03 and clip.joints[..., 1].min() > -0.03
        if name != "fall":
            assert ankles.min(1).max() < 0.22  # in the air for a moment at most, and by a hand's breadth
        assert 0.05 < speed(clip).max() < 8
        assert np.abs(clip.joints[..., [0, 2]]).max() < RADIUS_M + 1.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_walk_goes_where_it_faces_and_left_is_left(seed: int) -> None:
    joints = make_motion("walk", seconds=10, fps=30, seed=seed).joints.astype(float)
    pelvis = joints[:, AT["pelvis"]]
    course = (pelvis[10:] - pelvis[:-10]) * [1, 0, 1]
    ahead = facing(joints)[5:-5]
    along = (course * ahead).sum(-1) / np.linalg.norm(course, axis=-1)
    assert along.mean() > 0.97 and along.min() > 0.9
    assert 0.7 < np.linalg.norm(course, axis=-1).mean() * 3 < 1.8  # m/s
    # A knee bends backwards and an elbow forwards, whichever way the person looks: no mirrored limb.
    thigh_mid = (joints[:, AT["l_hip"]] + joints[:, AT["l_ankle"]]) / 2
    arm_mid = (joints[:, AT["l_shoulder"]] + joints[:, AT["l_wrist"]]) / 2
    assert ((joints[:, AT["l_knee"]] - thigh_mid) * facing(joints)).sum(-1).mean() > 0
    assert ((joints[:, AT["l_elbow"]] - arm_mid) * facing(joints)).sum(-1).mean() < 0


def test_a_person_facing_minus_z_has_the_left_at_minus_x() -> None:
    for seed in SEEDS:
        joints = make_motion("stand", seconds=1, seed=seed).joints[0].astype(float)
        ahead = facing(joints[None])[0]
        # Turn the person about y until they face -z.
        c, s = -ahead[2], -ahead[0]
        x = joints[:, 0] * c - joints[:, 2] * s
        for part in ("shoulder", "hip", "ankle", "wrist"):
            assert x[AT[f"l_{part}"]] < x[AT["pelvis"]] < x[AT[f"r_{part}"]]
        assert 0.85 < joints[AT["pelvis"], 1] < 1.05


@pytest.mark.parametrize("seed", range(20))
def test_a_fall_ends_on_the_floor_within_two_seconds_and_stays(seed: int) -> None:
    clip = make_motion("fall", seconds=6, fps=30, seed=seed)
    head = clip.joints[:, AT["head"], 1]
    assert head[:15].min() > 1.3 and head[60:].max() < 0.5
    assert clip.joints[60:, AT["pelvis"], 1].max() < 0.45
    assert speed(clip)[75:].max() < 0.6
    down = np.flatnonzero(head < 0.5)[0] - np.flatnonzero(head > 0.9 * head[0])[-1]
    assert 0.3 < down / 30 < 1.0


def test_only_the_fall_ends_on_the_floor() -> None:
    for name in NAMES:
        if name != "fall":
            assert make_motion(name, seconds=10, seed=1).joints[:, AT["head"], 1].min() > 0.5, name
    assert make_motion("stand", seconds=10, seed=1).joints[:, AT["head"], 1].min() > 1.4


def test_each_motion_does_what_its_name_says() -> None:
    """One telling number per motion, for several people."""
    for seed in SEEDS:
        made = {name: make_motion(name, seconds=10, seed=seed).joints.astype(float) for name in NAMES}
        y = {name: {part: joints[:, i, 1] for part, i in AT.items()} for name, joints in made.items()}

        assert np.ptp(made["stand"], axis=0).max() < 0.45
        assert (y["wave"]["r_wrist"] > y["wave"]["neck"]).all() and y["wave"]["l_wrist"].max() < 1.1
        hands = np.linalg.norm(made["clap"][:, AT["l_wrist"]] - made["clap"][:, AT["r_wrist"]], axis=-1)
        assert hands.min() < 0.16 < 0.3 < hands.max()
        assert y["pick_up"]["r_wrist"].min() < 0.35 < 0.9 < y["pick_up"]["r_wrist"].max()
        assert min(y["lift_box"][f"{s}_wrist"].max() - y["lift_box"]["head"].max() for s in "lr") > -0.1
        assert max(y["lift_box"][f"{s}_wrist"].min() for s in "lr") < 0.5
        assert 0.4 < y["sit_down"]["pelvis"].min() < 0.7 < 0.85 < y["sit_down"]["pelvis"].max()
        assert y["squat"]["pelvis"].min() < 0.65 and y["squat"]["pelvis"].max() > 0.85
        lifted = np.stack([y["jog"]["l_ankle"], y["jog"]["r_ankle"]])
        assert (lifted.max(1) > 0.25).all() and np.abs(made["jog"][:, 0, [0, 2]]).max() < 0.1


def test_a_made_clip_survives_its_file(tmp_path: object) -> None:
    clip = make_motion("wave", seconds=2, seed=5)
    path = f"{tmp_path}/wave/made5.npz"
    save_clip(path, clip)
    back = load_clip(path)
    np.testing.assert_array_equal(back.joints, clip.joints)
    assert (back.subject, back.source, back.fps) == (clip.subject, clip.source, clip.fps)


def test_an_unknown_name_is_answered_with_the_names() -> None:
    with pytest.raises(ClipError, match="moonwalk") as e:
        make_motion("moonwalk", seconds=2)
    assert all(name in str(e.value) for name in NAMES)


@pytest.mark.parametrize(
    "bad",
    [
        {"seconds": 0},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"seconds": 2, "fps": 0},
        {"seconds": 2, "seed": -1},
    ],
)
def test_a_length_rate_or_seed_that_no_clip_has_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ClipError, match="cannot make"):
        make_motion("stand", **bad)  # type: ignore[arg-type]
