"""`haad-edge axes` looks, and turns what it is told to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.cli import make_app
from edge.clip import load_clip, save_clip
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


def test_clips_are_not_written_over_themselves(camera: Path) -> None:
    before = (camera / "walk" / "1.npz").read_bytes()
    done = runner.invoke(make_app(), ["axes", str(camera), "--to", "x,-y,-z", "--out", f"{camera}/../clips"])
    assert done.exit_code == 2 and (camera / "walk" / "1.npz").read_bytes() == before


def test_both_or_none(camera: Path) -> None:
    for options in (["--to", "x,y,z"], ["--out", "somewhere"]):
        assert "go together" in runner.invoke(make_app(), ["axes", str(camera), *options]).output.replace("\n", " ")
