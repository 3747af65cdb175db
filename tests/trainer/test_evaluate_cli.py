"""`haad-edge evaluate` with its protocols, several shots and the report, as a user runs it."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from edge.cli import make_app
from edge.clip import load_clip
from edge.skeleton import CORE15, LAYOUTS
from tests.trainer.made import made, write_set
from trainer import paper
from trainer.released import HUMANACT12

SMPL = LAYOUTS["smpl24"].joints
UTD = "head neck spine pelvis l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist r_hand l_hip l_knee l_ankle"
UTD_JOINTS = f"{UTD} l_foot r_hip r_knee r_ankle r_foot".split()
NEAREST = {"spine": "pelvis", "spine1": "pelvis", "spine2": "pelvis", "spine3": "neck", "collar": "neck"}


def run(*command: object, fails: bool = False) -> str:
    """What the command prints."""
    result = CliRunner().invoke(make_app(), ["evaluate", "--draws", "2", *map(str, command)])
    assert (result.exit_code != 0) == fails, f"{result.output}\n{result.exception!r}"
    return " ".join((result.output + str(result.exception or "")).split())


def widen(joints: np.ndarray, names: list[str] | tuple[str, ...]) -> np.ndarray:
    """core15 (T, 15, 3) as joints of a larger layout; a joint that core15 lacks is where its neighbour is."""
    out = []
    for name in names:
        side, _, part = name.rpartition("_")
        near = NEAREST.get(name) or NEAREST.get(part) or f"{side}_{dict(hand='wrist', foot='ankle').get(part, part)}"
        out.append(joints[:, CORE15.index(name if name in CORE15 else near)])
    return np.stack(out, 1).astype(np.float32)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HumanAct12's form: ten clips of two seen categories, five of two unseen ones, by two people."""
    root = tmp_path_factory.mktemp("released") / "humanact12"
    root.mkdir()
    for name, motion, count in (
        ("walk", "walk", 10),
        ("sit", "squat", 10),
        ("boxing", "wave", 5),
        ("throw", "clap", 5),
    ):
        for k in range(count):
            clip = made(motion, 1 + k % 2, k)
            stem = f"P{1 + k % 2:02d}G01R{k:02d}F0001T0064A{HUMANACT12.index(name) + 1:02d}01"
            np.save(root / f"{stem}.npy", widen(clip.joints, SMPL))
    return root


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Recipe `paper` trains for three steps only, and what it was given is recorded."""
    given: list[np.ndarray] = []

    def train(joints: np.ndarray, label: np.ndarray, **more: object) -> paper.PaperEncoder:
        given.extend([joints, label])
        return short(joints, label, **more)

    short = partial(paper.train_paper, config=paper.PaperConfig(epochs=3, steps=1))
    monkeypatch.setattr(paper, "train_paper", train)
    return given


def test_humanact12_as_the_paper_has_it(released: Path, tmp_path: Path, briefly: list[np.ndarray]) -> None:
    out = tmp_path / "f.json"
    printed = run("--data", released, "--protocol", "humanact12", "--shots", "3,1,5,9", "--recipe", "paper",
                  "--json", out, "--report", tmp_path / "r")  # fmt: skip
    found = json.loads(out.read_text())
    # 80 % of 10, 10, 5, 5 clips are 8, 8, 4, 4; six are left to judge.
    assert (found["protocol"]["support_clips"], found["protocol"]["judged_clips"]) == (24, 6)
    assert found["protocol"]["unseen"] == ["boxing", "throw"] and set(found["parts"]) == {"seen", "unseen"}
    # The recipe is given the 16 clips of the seen categories, with all 24 joints.
    joints, label = briefly
    assert joints.shape == (16, 60, 24, 3) and sorted(set(label)) == [HUMANACT12.index(n) for n in ("walk", "sit")]
    # With 5 shots the two unseen categories are not possible; with 9 none is.
    runs = {(r["method"], r["shots"]): r for r in found["runs"]}
    assert [k for m, k in runs if m == "recipe paper"] == [1, 3, 5] and found["impossible"].keys() == {"9"}
    for method in ("recipe paper", "floor: raw DCT", found["model"]):
        assert runs[method, 5]["left_out"].keys() == {"boxing", "throw"} and set(runs[method, 3]["categories"]) == {
            "walk", "sit", "boxing", "throw",
        }  # fmt: skip
    assert found["shots"] == 3 and found["mean"] == runs[found["model"], 3]["mean"] and found["trained_on"] == ""
    assert found["paper"]["mean"] == runs["recipe paper", 3]["mean"]
    assert "not possible with 5 shots: throw: it has 4 clips" in printed and "not possible with 9 shots" in printed
    assert "manifest names neither" in printed and "mean, unseen" in printed
    assert "recipe paper" in (tmp_path / "r/index.html").read_text()


def test_the_actor_pickle_is_evaluated_alike(released: Path, tmp_path: Path) -> None:
    files = sorted(released.iterdir())  # as the folder is read: numbers are padded with zeros
    action = [int(f.stem[-4:-2]) - 1 for f in files]
    pickled = tmp_path / "poses.pkl"
    pickled.write_bytes(pickle.dumps({"joints3D": [np.load(f) for f in files], "y": action}))
    figures = []
    for data in (released, pickled):
        run("--data", data, "--protocol", "humanact12", "--no-floor", "--json", tmp_path / "f.json")
        figures.append(json.loads((tmp_path / "f.json").read_text()))
    assert figures[0]["runs"] == figures[1]["runs"] and len(figures[0]["runs"]) == 1


def test_utd_mhad_as_released_and_as_clips(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "clips", ("walk", "wave"), trials=3)
    (tmp_path / "mat").mkdir()
    for f in folder.glob("*/*.npz"):
        clip = load_clip(f)
        s, t = f.stem.split("_")
        name = f"a{1 + (f.parent.name == 'wave')}_{s}_{t}_skeleton.mat"
        savemat(tmp_path / "mat" / name, {"d_skel": widen(clip.joints, UTD_JOINTS).transpose(1, 2, 0)})
    means = []
    for data in ("clips", "mat"):
        printed = run("--data", tmp_path / data, "--protocol", "utd_mhad", "--json", tmp_path / "f.json")
        found = json.loads((tmp_path / "f.json").read_text())
        means.append(list(found["categories"].values()))
        assert (found["protocol"]["support_clips"], found["protocol"]["judged_clips"]) == (12, 12)
        # base was trained on a set of that name.
        assert "note: the model was trained on a set of the same name, 'utd_mhad'" in printed
    assert means[0] == pytest.approx(means[1], abs=0.1)


def test_people_and_folds(tmp_path: Path, briefly: list[np.ndarray]) -> None:
    data = write_set(tmp_path / "clips", ("walk", "wave", "clap"), trials=3)
    printed = run("--data", data, "--people", "2, 4", "--fold", 1, "--recipe", "paper", "--json", tmp_path / "f.json")
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["protocol"]["judged_clips"] == 18 and found["protocol"]["unseen"] == ["walk"]
    assert found["split"] == "people" and "all people but 2, 4" in printed
    assert len(briefly[0]) == 2 * 2 * 3  # two people, two seen categories, three clips


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shots", "3,x"], "--shots"),
        (["--shots", "0"], "--shots"),
        (["--protocol", "kinetics"], "--protocol"),
        (["--protocol", "humanact12", "--split", "random"], "--protocol"),
        (["--protocol", "utd_mhad", "--split", "random"], "--split"),
        (["--recipe", "cake"], "--recipe"),
        (["--split", "random", "--people", "1"], "--people"),
        (["--people", "9"], "subjects are 1, 2"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: list[str], said: str) -> None:
    data = write_set(tmp_path / "clips", ("walk", "wave"), subjects=2, trials=1)
    assert said in run("--data", data, *options, fails=True)


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ("--streaming --normals 5", "--normals is 5, but nobody who is judged has clips of more than 2", "people"),
        ("--streaming --normals 2", "→ use --normals 1", "--shots"),
        ("--streaming --shots 9", "there are at most 1 → use --shots 1", "--normals"),
        ("--shots 2", "has 1 clips to draw a support of 2 from → lower --shots, or use --split random", "--normals"),
        ("--shots 2 --people 1", "lower --shots, or name fewer people", "random"),
    ],
)
def test_what_stands_in_the_way_is_named_and_what_would_help(
    tmp_path: Path, options: str, said: str, unsaid: str
) -> None:
    data = write_set(tmp_path / "clips", ("walk", "wave"), subjects=2, trials=1)
    printed = run("--data", data, "--no-floor", *options.split(), fails=True)
    assert said in printed and unsaid not in printed


def test_fewer_shots_are_not_the_answer_where_there_is_nothing_to_draw_from(tmp_path: Path) -> None:
    data = write_set(tmp_path / "clips", ("walk", "wave"), subjects=2, trials=1)
    for path in data.glob("*/*.npz"):  # each action by one person alone
        if (path.parent.name == "walk") != (load_clip(path).subject == "2"):
            path.unlink()
    printed = run("--data", data, "--no-floor", "--people", "2", fails=True)
    assert "has 0 clips to draw a support of 3 from → name fewer people with --people, or add clips" in printed
