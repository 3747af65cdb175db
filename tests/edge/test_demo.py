"""The demo's scenes, and the demo itself, short and fast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.clip import Clip, load_clip, save_clip
from edge.demo import NORMAL, Camera, made_scene, real_scene
from edge.errors import ClipError
from edge.motion import make_motion

SECOND = 10**9


def test_the_made_scene_plays_only_one_thing_that_the_support_does_not_hold(tmp_path: Path) -> None:
    cameras = made_scene(tmp_path, 60)
    assert sorted(p.name for p in (tmp_path / "support").iterdir()) == sorted(NORMAL)
    odd = [(c.name, name) for c in cameras for name, _ in c.acts if name not in NORMAL]
    assert odd == [("depot", "fall")] and len(cameras) == 3
    for c in cameras:
        for clip, (_, lasts) in zip(c.clips, c.acts, strict=True):
            assert load_clip(clip).seconds == pytest.approx(lasts, abs=0.05)


def test_what_a_camera_is_doing_follows_its_script() -> None:
    c = Camera("x", [("walk", 10.0), ("fall", 5.0)], [])
    assert c.doing() == "…"
    c.start = 100 * SECOND
    found = []
    for t in (100, 109, 111, 116):
        c.t = t * SECOND
        found.append(c.doing())
    assert found == ["walk", "walk", "fall", "gone"]


def test_the_real_scene_separates_support_and_players_and_one_camera_does_the_undescribed(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        for subject in ("1", "2", "3"):
            for k in range(3):
                clip = make_motion("walk", seconds=3, seed=k)
                clip = Clip(clip.joints, clip.visible, clip.fps, subject)
                save_clip(tmp_path / "data" / name / f"{subject}_{k}.npz", clip)
    cameras = real_scene(tmp_path / "scene", tmp_path / "data")
    assert sorted(p.name for p in (tmp_path / "scene" / "support").iterdir()) == ["a", "b", "c"]
    assert [c.name for c in cameras if any(n == "d" for n, _ in c.acts)] == ["cam3"]
    used = {p.read_bytes() for p in (tmp_path / "scene" / "support").rglob("*.npz")}
    for c in cameras:
        assert all(f.exists() for f in c.clips) and len(c.acts) == len(c.clips)
        for name, f in zip((n for n, _ in c.acts), c.clips, strict=True):
            assert f.parent.name == name
    assert used
    with pytest.raises(ClipError):
        real_scene(tmp_path / "one", tmp_path / "scene" / "support" / "a")


@pytest.mark.timeout(120)
def test_the_demo_reports_the_fall_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", "demo", "--seconds", "9", "--speed", "5"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    new = [line for line in done.stdout.splitlines() if " NEW " in line]
    assert len(new) == 1 and "depot" in new[0] and "(doing: fall)" in new[0], done.stdout
    assert "1 alert(s) raised" in done.stdout
