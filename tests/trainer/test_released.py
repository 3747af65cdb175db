"""Readers of released data sets: with synthetic files in their format, and with real samples if they are there."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from edge.cli import make_app
from edge.clip import categories, load_clip
from edge.errors import ClipError
from edge.skeleton import CORE15, LAYOUTS
from trainer.released import HUMANACT12, read_humanact12, read_utd_mhad

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def raw() -> Path:
    if not (SHARED / "raw").is_dir():
        pytest.skip(f"the released files are not at {SHARED / 'raw'}")
    return SHARED / "raw"


def smpl(frames: int = 5) -> np.ndarray:
    """Every joint's coordinates are its number, so that a mixed-up order shows."""
    joints = np.zeros((frames, 24, 3), np.float32)
    joints[..., 0] = np.arange(24) / 10
    joints[..., 1] = np.arange(frames)[:, None]
    return joints


def test_humanact12_files_carry_subject_and_action_in_their_names(tmp_path: Path) -> None:
    for name in ("P01G01R01F0001T0064A0101", "P10G02R03F0001T0064A1203", "P02G01R01F0001T0064A0205"):
        np.save(tmp_path / f"{name}.npy", smpl())
    (tmp_path / "readme.txt").write_text("not a clip")
    found = read_humanact12(tmp_path)
    assert [found.names[g] for g in found.label] == ["warm_up", "walk", "throw"]
    assert found.subjects.tolist() == ["1", "2", "10"] and found.names == HUMANACT12 and len(HUMANACT12) == 12
    for k, joint in enumerate(CORE15):
        assert found.clips[0].joints[0, k, 0] == pytest.approx(LAYOUTS["smpl24"].joints.index(joint) / 10)


def test_the_actor_pickle_gives_the_same_clips(tmp_path: Path) -> None:
    file = tmp_path / "humanact12poses.pkl"
    file.write_bytes(pickle.dumps({"joints3D": [smpl(5), smpl(9)], "y": [0, 11], "poses": [np.zeros((5, 72))] * 2}))
    found = read_humanact12(file)
    assert [found.names[g] for g in found.label] == ["warm_up", "throw"]
    assert [len(c.joints) for c in found.clips] == [5, 9]


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/haad-was-here"),))


@pytest.mark.parametrize("content", [Harmful(), print, {"joints3D": [Harmful()], "y": [0]}])
def test_a_pickle_that_would_run_something_is_refused_before_it_does(tmp_path: Path, content: object) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ClipError, match=r"x\.pkl: not a pickle of plain data"):
        read_humanact12(tmp_path / "x.pkl")
    assert not Path("/tmp/haad-was-here").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"y": [0]}, "no 'joints3D'"),
        ({"joints3D": [smpl()], "y": [0, 1]}, "1 clips and 2"),
        ({"joints3D": [smpl()], "y": [12]}, "action 13"),
    ],
)
def test_a_pickle_of_something_else_is_named(tmp_path: Path, content: object, words: str) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ClipError, match=words):
        read_humanact12(tmp_path / "x.pkl")


def test_utd_files_are_mapped_by_joint_name(tmp_path: Path) -> None:
    skeleton = np.zeros((20, 3, 6), np.float32)
    skeleton[:, 0] = np.arange(20)[:, None]
    savemat(tmp_path / "a3_s12_t1_skeleton.mat", {"d_skel": skeleton})
    found = read_utd_mhad(tmp_path)
    assert found.names == ["a03"] and found.subjects.tolist() == ["12"]
    x = dict(zip(CORE15, found.clips[0].joints[0, :, 0].tolist(), strict=True))
    assert (x["head"], x["neck"], x["pelvis"], x["l_shoulder"], x["r_wrist"], x["l_hip"], x["r_ankle"]) == (
        0,
        1,
        3,
        4,
        10,
        12,
        18,
    )


def test_what_is_not_the_release_is_named(tmp_path: Path) -> None:
    for read in (read_humanact12, read_utd_mhad):
        with pytest.raises(ClipError, match="no file named like"):
            read(tmp_path)
    savemat(tmp_path / "a3_s1_t1_skeleton.mat", {"d_skel": np.zeros((19, 3, 6))})
    with pytest.raises(ClipError, match=r"a3_s1_t1.*\(19, 3, 6\)"):
        read_utd_mhad(tmp_path)
    (tmp_path / "a3_s1_t1_skeleton.mat").write_bytes(b"x" * 200)
    with pytest.raises(ClipError, match="a3_s1_t1"):
        read_utd_mhad(tmp_path)


def test_the_real_utd_release_is_the_converted_set(raw: Path) -> None:
    found = read_utd_mhad(raw / "utd_mhad")
    assert (len(found.clips), len(found.names), len(set(found.subjects.tolist()))) == (861, 27, 8)
    converted = categories(SHARED / "utd_mhad")
    folder = next(name for name in converted if name.startswith("a05"))
    mine = next(i for i, p in enumerate(found.paths) if p.name.startswith("a5_s3_t2_"))
    theirs = load_clip(next(p for p in converted[folder] if p.stem == "s3_t2"))
    np.testing.assert_allclose(found.clips[mine].joints, theirs.joints, atol=0.011)


def test_convert_writes_clip_files(tmp_path: Path) -> None:
    np.save(tmp_path / "P03G01R01F0001T0064A0201.npy", smpl())
    done = CliRunner().invoke(
        make_app(), ["convert", str(tmp_path), "--from", "humanact12", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0 and "1 clips in 1 categories" in done.output
    clip = load_clip(tmp_path / "out" / "walk" / "P03G01R01F0001T0064A0201.npz")
    assert (clip.subject, clip.fps) == ("3", 20) and clip.joints.shape == (5, 15, 3)


def test_the_real_humanact12_samples_stand_upright(raw: Path) -> None:
    found = read_humanact12(raw / "humanact12_two_clips")
    assert [found.names[g] for g in found.label] == ["warm_up", "boxing"]
    for clip in found.clips:
        y = dict(zip(CORE15, clip.joints[0, :, 1].tolist(), strict=True))
        assert y["head"] > y["neck"] > y["pelvis"] > y["l_knee"] > y["l_ankle"]
