"""`haad-edge bench`, every section, in small: real processes over real ZeroMQ."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.cli import make_app
from edge.errors import SettingsError


def test_every_section(tmp_path: Path) -> None:
    figures, plot = tmp_path / "f.json", tmp_path / "f.svg"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edge.cli", "bench", "--cameras", "4", "--seconds", "1.5", "--rounds", "1"),
            *("--most-tracks", "100", "--json", str(figures), "--plot", str(plot)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    r = json.loads(figures.read_text())
    assert r["machine"] in done.stdout.replace("\n", " ") and str(tmp_path) not in figures.read_text()
    paced = r["sustained"]
    assert paced["lost"] == {} and paced["results_missed"] == 0
    assert paced["messages_s"] == pytest.approx(120, rel=0.15) and 40 < paced["windows_s"] < 90
    assert 0 < paced["score"]["p50_ms"] <= paced["score"]["p99_ms"] < 2000
    assert paced["score"]["count"] == pytest.approx(paced["windows_s"] * paced["seconds"], rel=0.25)
    assert 0 < paced["engine_cpu"] < 1.5 and paced["cameras"]["cpu"] < 0.5
    top = r["ceiling"]
    # The two are measured apart, each on whatever the machine has free.
    assert top["rounds"][0]["frames_lost"] == 0 and 0.05 < top["share_of_bare"] < 3
    stages = r["stages"]["cpu_us_a_person_frame"]
    assert all(stages[s] > 0 for s in ("receive", "decode", "window", "engine", "score", "loop"))
    assert max(stages, key=stages.__getitem__) == "engine"
    assert [row["tracks"] for row in r["tracks"]["rows"]] == [10, 100]
    assert 0 < r["start"]["warm"]["answers"] <= r["start"]["warm"]["first_score"] < 20
    assert ET.fromstring(plot.read_text()).tag.endswith("svg")


def test_an_unknown_section_is_named() -> None:
    e = CliRunner().invoke(make_app(), ["bench", "--only", "stages,speed"]).exception
    assert isinstance(e, SettingsError) and "speed" in str(e) and "sustained" in str(e)


def test_a_soak_sends_as_much_capture_time_as_it_says(tmp_path: Path) -> None:
    figures = tmp_path / "f.json"
    arguments = ["bench", "--only", "soak", "--capture", "120", "--cameras", "4", "--json", str(figures)]
    done = CliRunner().invoke(make_app(), arguments)
    assert done.exit_code == 0, done.output
    s = json.loads(figures.read_text())["soak"]
    assert s["lost"] == {} and s["messages"] >= 120 * 4 * 30 and s["windows"] > 120 * 4 * 3 * 4
    assert s["memory_mb"][-1][0] == 120 and 20 < s["last_mb"] <= s["most_mb"] < 1000
    assert [at for at, _ in s["memory_mb"]] == sorted(at for at, _ in s["memory_mb"])
