"""The benchmarks run and write what they say; what they find is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from edge.clip import save_clip
from edge.motion import make_motion

ROOT = Path(__file__).parents[1]


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stream(tmp_path: Path) -> None:
    text = run("benchmarks.stream", "--seconds", "3", "--json", str(tmp_path / "f.json"))
    report = json.loads((tmp_path / "f.json").read_text())
    assert len(report["rows"]) == 4 and all(row["median"] > 0 for row in report["rows"].values())
    assert "frames_lost 0" in text and report["machine"] in text


def test_alarms(tmp_path: Path) -> None:
    for name in ("walk", "squat", "wave"):
        for subject in range(1, 5):
            for k in range(2):
                clip = replace(make_motion(name, seconds=3, seed=10 * subject + k), subject=str(subject))
                save_clip(tmp_path / "data" / name / f"{subject}_{k}.npz", clip)
    found = tmp_path / "f.json"
    run("benchmarks.alarms", "--data", str(tmp_path / "data"), "--shots", "2", "--draws", "2", "--json", str(found))
    mean = json.loads(found.read_text())["mean"]
    assert mean["window_auroc"] > 0.95 and mean["other_clips_alerted"] > mean["normal_clips_alerted"]
