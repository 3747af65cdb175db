"""The benchmarks run and write what they say; what they find is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.clip import save_clip
from edge.motion import make_motion
from trainer.baselines import raw_dct
from trainer.datasets import load_set
from trainer.evaluate import few_shot

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


def test_scaling(tmp_path: Path) -> None:
    for name in ("walk", "squat", "wave"):
        for subject in range(1, 5):
            for k in range(2):
                clip = replace(make_motion(name, seconds=2, seed=10 * subject + k), subject=str(subject))
                save_clip(tmp_path / "data" / name / f"{subject}_{k}.npz", clip)
    found = tmp_path / "f.json"
    text = run(
        "benchmarks.scaling", "--data", str(tmp_path / "data"), "--draws", "2", "--steps", "5", "--json", str(found)
    )  # fmt: skip
    report = json.loads(found.read_text())
    assert report["machine"] in text and str(tmp_path) not in found.read_text()
    by_name = {(row["method"].split(":")[0], row["clips"]): row for row in report["rows"]}
    assert {clips for _, clips in by_name} == {3, 4} and len(by_name) == 6
    floor, flow, ours = (by_name[k, 3] for k in ("no learning", "a flow each", "one model"))
    # The clips drawn are those of `evaluate`, and so is the figure.
    data = load_set(tmp_path / "data")
    exact = few_shot(raw_dct(data.clips), np.array(data.names)[data.label], data.subjects, shots=3, draws=2)
    assert floor["auroc"] == pytest.approx(exact.mean)
    assert ours["numbers"][1] == 3 * 128 and flow["numbers"][1] > floor["numbers"][1] > ours["numbers"][1]
    assert flow["growth_computed"][2]["seconds_of_categories"] == pytest.approx(1000 * flow["seconds"][1])
