"""`haad-edge axes` looks, and turns what it is told to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.cli import make_app
from edge.clip import load_clip, save_clip
from edge.errors import ClipError, OutputError
from edge.motion import make_motion

runner = CliRunner()


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Clips in a camera's axes: y down, z away."""
    for motion in ("walk", "sit_down"):
        clip = make_motion(motion, seconds=4)
        clip = replace(clip, joints=clip.joints * np.float32([1, -1, -1]), subject="7", source="cam")
        save_clip(tmp_path / "clips" / motion / "1.npz", clip)
    return tmp_path / "clips"


def test_what_is_wrong_is_said_and_turned(camera: Path, tmp_path: Path) -> None:
    (camera / "walk" / "2.npz").write_bytes(b"no clip")
    done = runner.invoke(make_app(), ["axes", str(camera)])
    assert done.exit_code == 0 and "2 clips, heads are below hips" in done.output.replace("\n", " ")
    assert "left out" in done.output
    out = tmp_path / "right"
    done = runner.invoke(make_app(), ["axes", str(camera), "--to", "x,-y,-z", "--out", str(out)])
    assert done.exit_code == 0 and "nothing seems wrong" in done.output.replace("\n", " ")
    for motion in ("walk", "sit_down"):
        clip = load_clip(out / motion / "1.npz")
        np.testing.assert_array_equal(clip.joints, make_motion(motion, seconds=4).joints)
        assert (clip.subject, clip.source, clip.fps) == ("7", "cam", 30)


@pytest.mark.parametrize("to", ["z,-x,+y", "y,x,z", "x,-y,z"])
def test_what_becomes_which_axis(camera: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "o"
    assert runner.invoke(make_app(), ["axes", str(camera), "--to", to, "--out", str(out)]).exit_code == 0
    before, after = (load_clip(d / "walk" / "1.npz").joints for d in (camera, out))
    for k, name in enumerate(to.split(",")):
        sign = -1 if "-" in name else 1
        np.testing.assert_array_equal(after[..., k], sign * before[..., "xyz".index(name[-1])])


@pytest.mark.parametrize(
    "options",
    [["--to", "x,y"], ["--to", "x,x,z"], ["--to", "--x,y,z"], ["--to", "x,y,w"]],
    ids=lambda o: o[1],
)
def test_axes_that_are_none_are_refused(camera: Path, tmp_path: Path, options: list[str]) -> None:
    done = runner.invoke(make_app(), ["axes", str(camera), *options, "--out", str(tmp_path / "o")])
    assert done.exit_code == 2 and "Traceback" not in done.output and not (tmp_path / "o").exists()


def test_clips_are_not_written_over_others(camera: Path, tmp_path: Path) -> None:
    before = (camera / "walk" / "1.npz").read_bytes()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("")
    for out in (f"{camera}/../clips", camera / "turned", tmp_path / "taken"):
        done = runner.invoke(make_app(), ["axes", str(camera), "--to", "x,-y,-z", "--out", str(out)])
        assert done.exit_code == 2 and (camera / "walk" / "1.npz").read_bytes() == before
    assert not (camera / "turned").exists() and [p.name for p in (tmp_path / "taken").iterdir()] == ["x"]


def said(*words: object) -> str:
    done = runner.invoke(make_app(), ["axes", *map(str, words)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_one_category_among_others_is_named_and_turned_alone(camera: Path, tmp_path: Path) -> None:
    right, out = tmp_path / "right", tmp_path / "out"
    said(camera, "--to", "x,-y,-z", "--out", right)
    for n in (1, 2):
        save_clip(right / "squat" / f"{n}.npz", make_motion("squat", seconds=4, seed=n))
    over = load_clip(camera / "walk" / "1.npz")
    save_clip(right / "elsewhere" / "1.npz", over)
    assert "category 'elsewhere': heads are below hips" in said(right)
    assert "nothing seems wrong" in said(right, "--to", "x,-y,-z", "--category", "elsewhere", "--out", out)
    for name, y in (("squat", 1), ("elsewhere", -1)):
        before, after = (load_clip(d / name / "1.npz").joints[..., 1] for d in (right, out))
        np.testing.assert_array_equal(after, y * before)
    done = runner.invoke(make_app(), ["axes", str(right), "--category", "nobody"])
    assert done.exit_code == 2 and "there is no 'nobody'" in " ".join(done.output.split())


def test_what_cannot_be_told_is_not_said_to_be_right(tmp_path: Path) -> None:
    save_clip(tmp_path / "a" / "stand" / "1.npz", make_motion("stand", seconds=4))
    assert "left and right could not be checked" in said(tmp_path / "a")
    save_clip(tmp_path / "b" / "walk" / "1.npz", make_motion("walk", seconds=1))
    assert "too little is seen" in said(tmp_path / "b")


@pytest.mark.parametrize(("to", "turns"), [("x,z,-y", False), ("z,y,x", False), ("x,-y,-z", True), ("y,x,z", True)])
def test_nothing_else_becomes_the_depth_of_a_picture(tmp_path: Path, to: str, turns: bool) -> None:
    clip = make_motion("walk", seconds=4)
    save_clip(tmp_path / "flat" / "walk" / "1.npz", clip)
    save_clip(tmp_path / "flat" / "walk" / "2.npz", replace(clip, joints=clip.joints * np.float32([1, 1, 0])))
    done = runner.invoke(make_app(), ["axes", str(tmp_path / "flat"), "--to", to, "--out", str(tmp_path / "o")])
    if turns:
        assert done.exit_code == 0 and len(list((tmp_path / "o" / "walk").iterdir())) == 2
    else:
        assert isinstance(done.exception, ClipError) and "2.npz: has no depth" in done.exception.what
        assert not (tmp_path / "o").exists()  # nothing half done, which a second try would find in its way


def test_where_nothing_can_be_written_is_said_before_the_clips_are_read(
    camera: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("edge.clip.iter_clips", lambda files: pytest.fail("read"))
    words = ["axes", str(camera), "--to", "x,-y,-z", "--out", str(tmp_path / "file" / "o")]
    assert isinstance(runner.invoke(make_app(), words).exception, OutputError)


def test_both_or_none(camera: Path) -> None:
    for options in (["--to", "x,y,z"], ["--out", "somewhere"]):
        assert "go together" in runner.invoke(make_app(), ["axes", str(camera), *options]).output.replace("\n", " ")
