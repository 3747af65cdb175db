"""Who is support and who is judged: HumanAct12's rule by hand and by its published counts, splits by people, folds."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from edge.errors import ClipError
from edge.skeleton import LAYOUTS
from tests.trainer.made import write_set
from trainer.datasets import load_set
from trainer.protocols import (
    at_random,
    by_people,
    by_subject,
    first_part,
    leave_out,
    make_protocol,
    paper_clips,
    read_clips,
    trained_on,
)
from trainer.released import HUMANACT12

# Clips of each category in the full release, in its order: Guo et al., Action2Motion, 2020; 1,191 in all.
RELEASED = (215, 47, 50, 94, 88, 218, 54, 77, 56, 61, 140, 91)


def smpl(mark: float, frames: int = 4) -> np.ndarray:
    """A clip of 24 joints, each at a different place."""
    joints = np.zeros((frames, 24, 3), np.float32)
    joints[..., 0] = np.arange(24) / 10
    joints[..., 1] = mark
    return joints


def write_humanact12(root: Path, counts: dict[str, int]) -> Path:
    """Files as released: `counts` clips of each category, by persons 1, 2, 3 in turn."""
    root.mkdir()
    for name, count in counts.items():
        for k in range(count):
            stem = f"P{k % 3 + 1:02d}G01R{k:02d}F0001T0064A{HUMANACT12.index(name) + 1:02d}01"
            np.save(root / f"{stem}.npy", smpl(k))
    return root


def test_the_full_release_is_divided_as_published() -> None:
    category = np.repeat(HUMANACT12, RELEASED)
    assert len(category) == 1191
    p = first_part(category, HUMANACT12[:9])
    assert p.train.sum() == 716 and p.test.sum() == 243
    assert not (p.pool & p.test).any() and (p.pool | p.test).all()
    assert p.seen is not None and set(category[~p.seen]) == {"phone", "boxing", "throw"}


def test_of_a_small_release_the_first_four_fifths_by_hand(tmp_path: Path) -> None:
    root = write_humanact12(tmp_path / "ha", {"walk": 5, "jump": 7, "throw": 4})
    clips, problems = read_clips(root, "humanact12")
    p = make_protocol("humanact12", clips)
    found: dict[str, tuple[list[str], list[str]]] = {}
    for path, label, pool, test in zip(clips.paths, clips.label, p.pool, p.test, strict=True):
        assert pool != test
        found.setdefault(HUMANACT12[label], ([], []))[int(test)].append(path.name[:9])
    # In the order of the files' names, person first: 4 of 5, 5 of 7, 3 of 4 (3.2).
    assert found["walk"] == (["P01G01R00", "P01G01R03", "P02G01R01", "P02G01R04"], ["P03G01R02"])
    assert found["jump"][0] == ["P01G01R00", "P01G01R03", "P01G01R06", "P02G01R01", "P02G01R04"]
    assert [len(x) for x in found["throw"]] == [3, 1]
    assert problems == [] and p.seen is not None
    assert set(np.array(clips.names)[clips.label][~p.seen]) == {"throw"} and p.train.sum() == 4 + 5


def test_the_recipe_gets_all_24_joints_of_either_form(tmp_path: Path) -> None:
    root = write_humanact12(tmp_path / "ha", {"walk": 2, "jump": 2})
    file = tmp_path / "poses.pkl"
    file.write_bytes(pickle.dumps({"joints3D": [smpl(3), smpl(1)], "y": [1, 3]}))
    for data, marks in ((root, [0, 0, 1, 1]), (file, [3, 1])):
        clips, _ = read_clips(data, "humanact12")
        given = paper_clips(data, "humanact12", clips)
        assert [c.joints.shape for c in given] == [(4, 24, 3)] * len(marks)
        assert [c.joints[0, 0, 1] for c in given] == marks
        # The same clip as the one of 15 joints beside it.
        wrist = LAYOUTS["smpl24"].joints.index("r_wrist")
        np.testing.assert_array_equal(given[0].joints[:, wrist], clips.clips[0].joints[:, 8])
    made = load_set(write_set(tmp_path / "set", ("walk", "wave"), subjects=1, trials=1))
    assert paper_clips(tmp_path / "set", "clips", made) is made.clips


def test_splits_by_people() -> None:
    subject = np.array(["1", "2", "3", "10", "2"])
    p = by_subject(subject)  # natural order: 1 2 3 10
    assert p.pool.tolist() == [True, False, True, False, False] and (p.test == ~p.pool).all() and p.seen is None
    assert (p.train == p.pool).all() and p.name == "subject"
    p = by_people(subject, ["10", "3"])
    assert p.test.tolist() == [False, False, True, True, False] and (p.pool == ~p.test).all()
    assert "10, 3" in p.about
    p = at_random(3)
    assert p.pool.all() and p.test.all()


@pytest.mark.parametrize("judged", [["4"], ["1", "2", "3", "10"]])
def test_people_who_cannot_be_judged(judged: list[str]) -> None:
    with pytest.raises(ClipError, match=r"subjects are 1, 2, 3, 10.*--people"):
        by_people(np.array(["1", "2", "3", "10"]), judged)


def test_a_fold_keeps_every_fourth_category_from_the_recipe() -> None:
    label = np.arange(10)
    p = leave_out(at_random(10), label, 1)
    assert p.seen is not None and np.flatnonzero(~p.seen).tolist() == [1, 5, 9]
    assert np.flatnonzero(~p.train).tolist() == [1, 5, 9] and p.pool.all()
    assert sorted(np.concatenate([np.flatnonzero(~leave_out(p, label, f).train) for f in range(4)])) == label.tolist()


def test_utd_mhad_is_read_from_either_form_and_split_by_person(tmp_path: Path) -> None:
    for a in (1, 2):
        for s in (1, 2):
            savemat(tmp_path / f"a{a}_s{s}_t1_skeleton.mat", {"d_skel": np.tile(np.eye(20, 3)[..., None] * a, 6)})
    clips, _ = read_clips(tmp_path, "utd_mhad")
    p = make_protocol("utd_mhad", clips)
    assert clips.names == ["a01", "a02"] and clips.subjects[p.pool].tolist() == ["1", "1"]
    folder = write_set(tmp_path / "set", ("walk", "wave"), subjects=2, trials=1)
    (folder / "walk/bad.npz").write_bytes(b"")
    clips, problems = read_clips(folder, "utd_mhad")
    assert len(clips.clips) == 4 and [type(e) for e in problems] == [ClipError] and "bad.npz" in str(problems[0])
    for f in folder.glob("*/s*.npz"):
        f.unlink()
    with pytest.raises(ClipError, match=r"no clip can be read.*bad\.npz"):
        read_clips(folder, "clips")


def test_what_the_manifest_says_of_the_clips(tmp_path: Path) -> None:
    clips = load_set(write_set(tmp_path / "mine", ("walk", "wave"), trials=1))
    p = by_subject(clips.subjects)
    other = {"name": "theirs", "sha256": "0", "held_out_subjects": ["4"]}
    assert trained_on({}, clips, p, "mine") == trained_on({"sets": [other]}, clips, p, "mine") == ""
    assert "a set of the same name, 'theirs'" in trained_on({"sets": [other]}, clips, p, "theirs")
    known = other | {"sha256": clips.digest}
    said = trained_on({"sets": [known]}, clips, p, "renamed")
    assert "on these very clips" in said and "--people 4 judges those alone" in said
    said = trained_on({"sets": [known]}, clips, by_people(clips.subjects, ["4"]), "renamed")
    assert "not the people judged" in said and "--people" not in said
    assert "--people" not in trained_on({"sets": [known | {"held_out_subjects": []}]}, clips, p, "x")
    assert "not seen" not in said
    said = trained_on({"sets": [known], "config": {"exclude": ["theirs/wa[v]*", "mine/walk"]}}, clips, p, "renamed")
    assert said.endswith("It has not seen wave, which its configuration left out.")
