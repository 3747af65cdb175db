"""The demo's scenes, and the demo itself, short and fast."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from edge.clip import Clip, load_clip, save_clip
from edge.demo import NORMAL, Camera, _picture, made_scene, real_scene
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
        [sys.executable, "-m", "edge.cli", "demo", "--seconds", "13", "--speed", "4"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    new = [line for line in done.stdout.splitlines() if " NEW " in line]
    assert len(new) == 1 and "depot" in new[0] and "(doing: fall)" in new[0], done.stdout
    assert "1 alert(s) raised" in done.stdout


def test_the_newest_scores_are_seen_in_a_narrow_terminal() -> None:
    cameras = [Camera(n, [("lift_box", 9.0)], [], [0.1] * 47 + [1.9], "lift_box", 0) for n in ("hall", "depot")]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_picture(cameras, [], 9.0))
    rows = [line for line in console.export_text().splitlines() if "▁" in line]
    assert len(rows) == 2 and all("▁█" in line and "…" not in line for line in rows)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_stop_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "edge.cli", "demo", "--seconds", "90"]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        until = time.monotonic() + 60
        while len(mine(tmp_path)) < 4 and time.monotonic() < until and demo.poll() is None:
            time.sleep(0.1)
        assert len(mine(tmp_path)) == 4
        demo.send_signal(number)
        assert demo.wait(30) == 128 + number
        assert mine(tmp_path) == [] and not list(tmp_path.glob("haad-demo-*"))
    finally:
        demo.kill()
        demo.wait()


def mine(folder: Path) -> list[str]:
    """The processes whose command line names the folder."""
    found = []
    for p in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in p.read_bytes():
                found.append(p.parent.name)
    return found
