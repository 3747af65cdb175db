"""Clip files and folders: what is read, what is refused with which words, and a clip between and beyond its frames."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge.clip
from edge.clip import BRIDGE_S, Clip, blend, categories, from_arrays, iter_clips, load_clip, natural, save_clip
from edge.errors import ClipError

WALK = np.random.default_rng(5).normal(size=(20, 15, 3)).astype(np.float32)


def seen(joints: np.ndarray, fps: float = 30.0) -> Clip:
    return Clip(joints.astype(np.float32), np.ones(joints.shape[:2], np.float32), fps)


def fields(**changes: Any) -> dict[str, Any]:
    """A good clip's arrays with some of them exchanged; None leaves one out."""
    good = {"joints": WALK, "fps": np.float32(25), "layout": "core15", **changes}
    return {k: np.asarray(v) for k, v in good.items() if v is not None}


def test_one_frame_with_a_pose_is_enough_and_some_joints_may_be_at_the_origin() -> None:
    joints = np.zeros_like(WALK)
    joints[7, 3:] = WALK[7, 3:]
    assert len(from_arrays(fields(joints=joints), "x").joints) == 20


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(2, 30), st.floats(1, 120), st.lists(st.floats(-1, 40), min_size=1, max_size=20))
def test_at_is_linear_interpolation_of_every_coordinate(frames: int, fps: float, times: list[float]) -> None:
    clip = seen(np.random.default_rng(frames).normal(size=(frames, 15, 3)), fps)
    joints, visible = clip.at(np.array(times))
    stamps = np.arange(frames) / fps
    expected = [[np.interp(times, stamps, clip.joints[:, j, c]) for c in range(3)] for j in range(15)]
    np.testing.assert_allclose(joints, np.moveaxis(expected, -1, 0), atol=1e-4)
    np.testing.assert_allclose(visible, 1, atol=1e-6)


def test_resampling_keeps_both_ends_and_the_middle() -> None:
    clip = seen(WALK[:5], fps=10)
    assert clip.seconds == pytest.approx(0.4)
    joints, visible = clip.resampled(9)
    assert joints.shape == (9, 15, 3) and visible.shape == (9, 15)
    np.testing.assert_allclose(joints[::2], WALK[:5], atol=1e-6)
    np.testing.assert_allclose(joints[3], (WALK[1] + WALK[2]) / 2, atol=1e-6)


def test_between_a_seen_and_a_hidden_frame_the_seen_place_stands() -> None:
    joints, visible = np.full((3, 15, 3), 5.0), np.ones((3, 15))
    joints[1], visible[1] = 0, 0
    clip = Clip(joints.astype(np.float32), visible.astype(np.float32), 1.0)
    got, weight = clip.at(np.array([0.25, 1.0, 1.75]))
    np.testing.assert_allclose(weight[:, 0], [0.75, 0, 0.75], atol=1e-6)
    np.testing.assert_allclose(got[:, 0, 0], [5, 0, 5], atol=1e-6)  # never on the way to the origin


def test_blend_weighs_places_by_what_is_seen_of_them() -> None:
    one, three = np.full((1, 15, 3), 1, np.float32), np.full((1, 15, 3), 3, np.float32)
    full, half = np.ones((1, 15), np.float32), np.full((1, 15), 0.5, np.float32)
    joints, visible = blend(one, full, three, half, np.full((1, 1), 0.5, np.float32))
    # Weights 0.5 and 0.25: (0.5·1 + 0.25·3) / 0.75
    np.testing.assert_allclose(joints, 1.25 / 0.75, atol=1e-6)
    np.testing.assert_allclose(visible, 0.75, atol=1e-6)


def walker() -> Clip:
    """Three frames at 10 fps; every joint at x = 0, 0.1, 0.2, y = 1, 1.1, 1.2 and z = 0, -1, 0.4."""
    steps = np.array([[0, 1, 0], [0.1, 1.1, -1], [0.2, 1.2, 0.4]])
    return seen(np.repeat(steps[:, None], 15, 1), fps=10)


def test_a_loop_walks_on_over_the_ground_and_comes_back_in_height() -> None:
    assert BRIDGE_S == 0.15  # the numbers below are made for it: a round lasts 0.2 + 0.15 s and goes (0.2, -, 0.4)
    times = [0.0, 0.1, 0.2, 0.275, 0.35, 0.45, 0.625, 0.8, 3.5]
    places = [
        [0, 1, 0], [0.1, 1.1, -1], [0.2, 1.2, 0.4], [0.2, 1.1, 0.4], [0.2, 1.0, 0.4], [0.3, 1.1, -0.6],
        [0.4, 1.1, 0.8], [0.5, 1.1, -0.2], [2.0, 1.0, 4.0],
    ]  # fmt: skip
    joints, visible = walker().looped(np.array(times))
    np.testing.assert_allclose(joints, np.repeat(np.array(places)[:, None], 15, 1), atol=1e-5)
    np.testing.assert_allclose(visible, 1, atol=1e-6)


def test_a_loop_is_the_clip_itself_in_its_first_round() -> None:
    clip = seen(WALK, fps=25)
    times = np.linspace(0, clip.seconds, 57)
    np.testing.assert_allclose(clip.looped(times)[0], clip.at(times)[0], atol=1e-5)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_a_loop_repeats_but_for_the_way_it_goes_and_never_jumps(seed: int, frames: int) -> None:
    clip = seen(np.random.default_rng(seed).normal(size=(frames, 15, 3)), fps=20)
    period = clip.seconds + BRIDGE_S
    travel = (clip.joints[-1] - clip.joints[0]).astype(float).mean(0) * [1, 0, 1]
    times = np.linspace(0, period, 31)
    here, later = clip.looped(times)[0], clip.looped(times + 3 * period + 1e-9)[0]
    np.testing.assert_allclose(later[:-1], here[:-1] + 3 * travel, atol=2e-3)
    fine = clip.looped(np.arange(0, 3 * period, 1e-4))[0].astype(float)
    bridge = (clip.joints[0] + travel - clip.joints[-1]) / BRIDGE_S
    fastest = max(np.abs(np.diff(clip.joints, axis=0)).max() * 20, np.abs(bridge).max())
    assert np.abs(np.diff(fine, axis=0)).max() < 1e-4 * fastest * 1.05 + 1e-4


def test_a_hidden_joint_stays_at_zero_through_the_rounds_of_a_loop() -> None:
    clip = walker()
    clip.joints[:, 8], clip.visible[:, 8] = 0, 0
    joints, visible = clip.looped(np.array([0.1, 0.3, 0.45, 2.0]))
    assert (joints[:, 8] == 0).all() and (visible[:, 8] == 0).all()
    np.testing.assert_allclose(joints[2, 7], [0.3, 1.1, -0.6], atol=1e-5)


def test_the_way_is_measured_on_joints_seen_at_both_ends() -> None:
    clip = walker()
    clip.joints[-1, 3:], clip.visible[-1, 3:] = 0, 0
    np.testing.assert_allclose(clip.looped(np.array([0.35]))[0][0, 0], [0.2, 1.0, 0.4], atol=1e-5)


def test_a_saved_clip_comes_back_whole(tmp_path: Path) -> None:
    visible = (np.random.default_rng(1).random((20, 15)) > 0.3).astype(np.float32)
    clip = Clip(WALK * visible[..., None], visible, 12.5, "anna", "kitchen, 3 May")
    save_clip(tmp_path / "deep" / "er" / "a.npz", clip)
    back = load_clip(tmp_path / "deep" / "er" / "a.npz")
    np.testing.assert_array_equal(back.joints, clip.joints)
    np.testing.assert_array_equal(back.visible, clip.visible)
    assert (back.fps, back.subject, back.source) == (12.5, "anna", "kitchen, 3 May")
    with zipfile.ZipFile(tmp_path / "deep" / "er" / "a.npz") as z:
        assert "joints.npy" in z.namelist()


def test_image_keypoints_become_upright_core15() -> None:
    pixels = np.tile(np.arange(17.0)[:, None] * [10, 20], (4, 1, 1))
    clip = from_arrays(fields(joints=pixels, layout="coco17", fps=np.array([30])), "x")
    assert clip.joints.shape == (4, 15, 3) and clip.fps == 30
    np.testing.assert_allclose(clip.joints[0, 5], [90, -180, 0])  # COCO 9, the left wrist
    np.testing.assert_allclose(clip.joints[0, 0], [115, -230, 0])  # between COCO 11 and 12


def test_places_that_are_no_numbers_are_hidden_in_a_clip() -> None:
    joints = WALK.astype(float)
    joints[0, 3, 1], joints[1, 3, 0], joints[2, 3, 2] = np.nan, -np.inf, 1e300
    with np.errstate(all="raise"):
        clip = from_arrays(fields(joints=joints, visible=np.ones((20, 15), bool)), "x")
    assert clip.visible[:4, 3].tolist() == [0, 0, 0, 1] and (clip.joints[:3, 3] == 0).all()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no joints": ({"joints": None}, "'joints' is missing"),
    "no fps": ({"fps": None}, "'fps' is missing"),
    "no layout": ({"layout": None}, "'layout' is missing"),
    "text joints": ({"joints": np.full((20, 15, 3), "a")}, "'joints' is <U1"),
    "complex joints": ({"joints": WALK.astype(complex)}, "'joints' is complex128"),
    "flat joints": ({"joints": WALK[0]}, "'joints' is float32 (15, 3)"),
    "four coordinates": ({"joints": np.zeros((20, 15, 4))}, "'joints' is float64 (20, 15, 4)"),
    "too few joints": ({"joints": WALK[:, :14]}, "'joints' has 14 joints, layout core15 has 15"),
    "other layout's joints": ({"layout": "coco17"}, "'joints' has 15 joints, layout coco17 has 17"),
    "one frame": ({"joints": WALK[:1]}, "1 frames; a clip has 2 to"),
    "no frames": ({"joints": WALK[:0]}, "0 frames; a clip has 2 to"),
    "unknown layout": ({"layout": "coco18"}, "unknown layout 'coco18'"),
    "numeric layout": ({"layout": 17}, "unknown layout '17'"),
    "fps 0": ({"fps": 0}, "'fps' is 0, not between"),
    "fps NaN": ({"fps": np.nan}, "'fps' is nan"),
    "fps inf": ({"fps": np.inf}, "'fps' is inf"),
    "fps negative": ({"fps": -30.0}, "'fps' is -30"),
    "fps array": ({"fps": [30, 30]}, "'fps' is not one number"),
    "fps text": ({"fps": "30"}, "'fps' is not one number"),
    "nothing seen": ({"joints": np.full_like(WALK, np.nan)}, "no joint is visible"),
    "all at the origin": ({"joints": np.zeros((20, 15, 3))}, "no joint is visible in any frame; two or more joints at"),
    "all at one place": ({"joints": np.repeat(WALK[:, :1], 15, 1)}, "holds no pose"),
    "all seen at one place": (
        {"joints": np.where((np.arange(15) > 5)[:, None], WALK, 1), "visible": np.tile(np.arange(15) <= 5, (20, 1))},
        "holds no pose",
    ),
    "all hidden": ({"visible": np.zeros((20, 15))}, "no joint is visible"),
    "visible per frame": ({"visible": np.ones(20)}, "'visible' is float64 (20,), not numbers (20, 15)"),
    "visible text": ({"visible": np.full((20, 15), "y")}, "'visible' is <U1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_field_is_refused_with_its_name_and_the_files(tmp_path: Path, case: str) -> None:
    changes, words = WRONG[case]
    np.savez(tmp_path / "bad.npz", **fields(**changes))
    with pytest.raises(ClipError) as e:
        load_clip(tmp_path / "bad.npz")
    assert str(e.value).startswith(f"{tmp_path}/bad.npz: not a usable clip") and words in str(e.value)
    assert e.value.fix


class Armed:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pkl", "npy", "npz"])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    path, trap = tmp_path / "clip.npz", tmp_path / "ran"
    armed = np.array([Armed(trap)], object)
    if kind == "pkl":
        path.write_bytes(pickle.dumps(Armed(trap)))
    elif kind == "npy":
        with path.open("wb") as f:
            np.save(f, armed, allow_pickle=True)
    else:
        np.savez(path, **fields(subject=armed))
    with pytest.raises(ClipError, match=r"clip\.npz.*without pickle" + ".*'subject'" * (kind == "npz")):
        load_clip(path)
    assert not trap.exists()


def test_files_that_are_no_clip_are_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **fields())
    whole = (tmp_path / "whole.npz").read_bytes()
    with io.BytesIO() as f:
        np.save(f, WALK)
        array = f.getvalue()
    bad = {"empty": b"", "text": b"joints,fps\n1,2\n", "half": whole[: len(whole) // 2], "an array alone": array}
    for name, content in bad.items():
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ClipError, match=r"bad\.npz: not a usable clip"):
            load_clip(tmp_path / "bad.npz")
            pytest.fail(name)
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(ClipError, match=str(path)):
            load_clip(path)


@pytest.mark.parametrize("key", ["joints", "fps", "layout", "visible", "subject", "source"])
@pytest.mark.parametrize("head", ["", "{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}\n"], ids=["", "no text"])
def test_a_field_that_is_no_array_is_refused_by_name(tmp_path: Path, key: str, head: str) -> None:
    np.savez(tmp_path / "a.npz", **{k: v for k, v in fields(visible=np.ones((20, 15))).items() if k != key})
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as z:
        z.writestr(f"{key}.npy", b"\x93NUMPY\1\0" + bytes([len(head), 0]) + head.encode() + b"\xff" * 8)
    with pytest.raises(ClipError, match=f"a.npz.*'{key}'"):
        load_clip(tmp_path / "a.npz")


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", **fields(joints=np.zeros((500, 15, 3), np.float32)))
    assert (tmp_path / "bomb.npz").stat().st_size < 4096
    monkeypatch.setattr(edge.clip, "MAX_FILE_BYTES", 4096)
    with pytest.raises(ClipError, match=r"bomb\.npz.*'joints' unpacks to more than"):
        load_clip(tmp_path / "bomb.npz")
    monkeypatch.setattr(edge.clip, "MAX_FILE_BYTES", 100)
    with pytest.raises(ClipError, match=r"bomb\.npz.*larger than"):
        load_clip(tmp_path / "bomb.npz")


def test_an_array_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    with io.BytesIO() as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f4", "fortran_order": False, "shape": (10**13, 15, 3)})
        header = f.getvalue()
    np.savez(tmp_path / "a.npz", **fields(joints=None))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as z:
        z.writestr("joints.npy", header + b"\0" * 180)
    with pytest.raises(ClipError, match=r"a\.npz.*'joints'"):
        load_clip(tmp_path / "a.npz")


@settings(
    derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_no_damage_raises_anything_but_a_clip_error(
    tmp_path: Path, damage: list[tuple[int, int]], packed: bool
) -> None:
    path = tmp_path / "m.npz"
    (np.savez_compressed if packed else np.savez)(path, **fields(joints=WALK[:3], visible=np.ones((3, 15), np.uint8)))
    content = bytearray(path.read_bytes())
    for at, value in damage:
        content[at % len(content)] = value
    path.write_bytes(content)
    try:
        clip = load_clip(path)
    except ClipError as e:
        assert str(path) in str(e)
    else:
        assert clip.joints.shape[1:] == (15, 3) and np.isfinite(clip.joints).all()


def test_natural_order_counts_and_takes_any_name() -> None:
    names = ["10_a", "2_a", "a10", "a2", "a2b1", "²", "٣", "a"]
    assert sorted(["a10", "a2", "a1"], key=natural) == ["a1", "a2", "a10"]
    assert len(sorted(names, key=natural)) == len(names)
    assert sorted(["10_a", "2_a"], key=natural) == ["2_a", "10_a"]


def test_categories_are_folders_with_clips_in_natural_order(tmp_path: Path) -> None:
    for name in ("walk10/a.npz", "walk2/t10.npz", "walk2/t9.npz", "walk2/notes.txt", ".cache/a.npz", "²/a.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose.npz").touch()
    found = categories(tmp_path)
    assert [k for k in found if k != "²"] == ["walk2", "walk10"] and "²" in found
    assert [p.name for p in found["walk2"]] == ["t9.npz", "t10.npz"]


def test_a_folder_without_categories_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.npz").touch()
    (tmp_path / "walk").mkdir()
    for name, words in (
        ("", f"one category, not a set.* name {tmp_path.parent},"), ("walk", "no clips"), ("absent", "no such folder"),
        ("a.npz", "is a file, not a folder"),
    ):  # fmt: skip
        root = tmp_path / name
        with pytest.raises(ClipError, match=words) as e:
            categories(root)
        assert str(root) in str(e.value) and e.value.fix


def test_a_folder_of_several_sets_is_told_to_name_one(tmp_path: Path) -> None:
    for path in ("b/walk/1.npz", "a/wave/1.npz"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    with pytest.raises(ClipError, match=f"several sets of clips.*name one of them, such as {tmp_path / 'a'}"):
        categories(tmp_path)


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    save_clip(tmp_path / "good.npz", seen(WALK))
    (tmp_path / "bad.npz").write_bytes(b"PK")
    files = [tmp_path / "bad.npz", tmp_path / "good.npz"]
    (first, error), (second, clip) = iter_clips(files)
    assert [first, second] == files and isinstance(error, ClipError) and isinstance(clip, Clip)


def test_texts_may_come_from_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **fields(layout=np.array("core15", ">U6")))
    assert len(load_clip(tmp_path / "x.npz").joints)
