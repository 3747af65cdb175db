"""The benchmarks run and write what they promise; the figures they find are not judged here."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from benchmarks.conditions import CONDITIONS
from benchmarks.peers import PEERS, installed, run_peer
from benchmarks.programs import Tally
from edge.bench.site import prepare
from edge.bench.traffic import Load, cameras, recorded
from edge.bundle import open_bundle
from edge.clip import save_clip
from edge.engine import open_engine
from edge.events import Scores
from edge.motion import make_motion
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from tests.edge.harness import bench
from trainer.baselines import raw_dct, raw_distance
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


def three_motions(root: Path, seconds: float) -> None:
    """Two clips of each of three motions by each of four people."""
    for name in ("walk", "squat", "wave"):
        for subject in range(1, 5):
            for k in range(2):
                clip = replace(make_motion(name, seconds=seconds, seed=10 * subject + k), subject=str(subject))
                save_clip(root / name / f"{subject}_{k}.npz", clip)


def test_incremental() -> None:
    assert "slid on by 6 rows" in run("benchmarks.incremental", "--batch", "4", "--rounds", "1")


def test_stream(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    run(
        "benchmarks.stream", "--seconds", "1", "--cameras", "2", "--rounds", "1", "--round-seconds", "0.5",
        "--most-tracks", "10", "--out", str(tmp_path), "--page", str(page),
    )  # fmt: skip
    (made,) = tmp_path.glob("bench-*.json")
    report = json.loads(made.read_text())
    assert set(report["peers"]) == {"haad-edge", *installed()}
    assert all(v > 0 for row in report["peers"].values() for v in row.values()) and made.with_suffix(".svg").exists()
    text = page.read_text()
    assert report["machine"] in text and "| plain: windows a second |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n") and str(tmp_path) not in text


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gives_the_engines_distances(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.windows.phase_of", lambda *_: 0)  # as peers do: judge at once all who came at once
    if name == "bytewax":
        pytest.importorskip("bytewax")
    support = load_support(prepare(tmp_path), open_bundle(), open_engine(open_bundle()), FeatureCache(tmp_path / "c"))
    messages = recorded(cameras(Load(cameras=2, people=2, stay=4.0), seconds=5.0), 10.0)
    expected = {
        (e.stream, track, end): (category, distance)
        for e in bench(support=support).play(messages, chunk=50).sink.events
        if isinstance(e, Scores)
        for track, end, category, distance in zip(e.track, e.end, e.category, e.distance, strict=True)
    }
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    tally = Tally(0.0, messages=len(messages), keep=True)
    address = f"ipc://{tmp_path}/in"
    child = spawn.Process(target=run_peer, args=(name, address, tmp_path, tally, 0.25, True, theirs), daemon=True)
    child.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PUSH)
    try:
        socket.connect(address)
        for message in messages:
            socket.send(message)
        assert mine.poll(60)
        found = mine.recv()
    finally:
        socket.close(0)
        context.term()
        child.join(10)
    assert len(expected) > 60 and set(found) == set(expected)
    for key, (category, distance) in expected.items():
        assert found[key][support.names.index(category)] == pytest.approx(distance, abs=1e-3), key


def test_alarms(tmp_path: Path) -> None:
    three_motions(tmp_path / "data", seconds=3)
    found = tmp_path / "f.json"
    run("benchmarks.alarms", "--data", str(tmp_path / "data"), "--shots", "2", "--draws", "2", "--json", str(found))
    mean = json.loads(found.read_text())["mean"]
    assert mean["window_auroc"] > 0.95 and mean["other_clips_alerted"] > mean["normal_clips_alerted"]


def test_axes(tmp_path: Path) -> None:
    three_motions(tmp_path / "set", 4)
    run("benchmarks.axes", "--data", str(tmp_path / "set"), "--draws", "2", "--json", str(tmp_path / "x.json"))
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert rows["as they are"]["told"] == 0 and rows["y down"]["told"] == 1 and len(rows) == 5


def test_views(tmp_path: Path) -> None:
    three_motions(tmp_path / "set", 4)
    found, places = tmp_path / "x.json", ("3-D joints, as recorded", "45° aside, support from in front")
    words = ("--data", str(tmp_path / "set"), "--people", "4", "--draws", "2", "--places", *places)
    run("benchmarks.views", *words, "--json", str(found))
    rows = json.loads(found.read_text())["rows"]
    assert tuple(rows) == places and all(row["auroc"] > 0.9 for row in rows.values())
    assert len({row["auroc"] for row in rows.values()}) == 2  # each place saw something different


def test_place(tmp_path: Path) -> None:
    three_motions(tmp_path / "set", 4)
    found = tmp_path / "x.json"
    words = ("--data", str(tmp_path / "set"), "--people", "4", "--shots", "2", "--draws", "1", "--minutes", "0.5")
    run("benchmarks.place", *words, "--json", str(found))
    rows = json.loads(found.read_text())["rows"]
    assert tuple(rows) == ("as it starts", "calibrated", "accepted", "both")
    assert all(row["recall"] > 0.5 and 0.09 < row["hours"] < 0.11 for row in rows.values())
    assert len({row["delay"] for row in rows.values()}) > 1  # the folder is not the same each time


def test_repetitions(tmp_path: Path) -> None:
    for name, motion in (("m01_correct", "squat"), ("m01_incorrect", "wave")):
        for k in range(7):
            clip = replace(make_motion(motion, seconds=3, seed=k), subject="1")
            save_clip(tmp_path / "data" / name / f"{k}.npz", clip)
    found = tmp_path / "f.json"
    run("benchmarks.repetitions", "--data", str(tmp_path / "data"), "--draws", "2", "--json", str(found))
    report = json.loads(found.read_text())
    # Waving is nothing like a squat: everything tells them apart.
    assert report["auroc_whole"]["mean"] > 0.99 and report["auroc_windows"]["mean"] > 0.99
    assert report["incorrect_above_limit"]["mean"] == 1 > report["correct_above_limit"]["mean"]


def test_scaling(tmp_path: Path) -> None:
    three_motions(tmp_path / "data", seconds=2)
    found = tmp_path / "f.json"
    text = run(
        "benchmarks.scaling", "--data", str(tmp_path / "data"), "--draws", "2", "--steps", "5", "--json", str(found)
    )  # fmt: skip
    report = json.loads(found.read_text())
    assert report["machine"] in text and str(tmp_path) not in found.read_text()
    by_name = {(row["method"].split(":")[0], row["clips"]): row for row in report["rows"]}
    assert {clips for _, clips in by_name} == {3, 4} and len(by_name) == 8
    floor, flow, ours = (by_name[k, 3] for k in ("no learning", "a flow each", "one model"))
    # The clips drawn are the same as in `evaluate`, and so is the figure.
    data = load_set(tmp_path / "data")
    exact = few_shot(raw_dct(data.clips), np.array(data.names)[data.label], data.subjects, shots=3, draws=2)
    assert ours["ms"][1] > 0 and floor["auroc"] == pytest.approx(exact.mean)
    assert ours["numbers"][1] == 3 * 128 and flow["numbers"][1] > floor["numbers"][1] > ours["numbers"][1]
    assert flow["growth_computed"][2]["seconds_of_categories"] == pytest.approx(1000 * flow["seconds"][1])


def test_accuracy(tmp_path: Path) -> None:
    def write(category: str, motion: str, clips: int = 2) -> None:
        for subject in range(1, 5):
            for k in range(clips):
                clip = make_motion(motion, seconds=1.5, fps=20, seed=50 * subject + k)
                save_clip(tmp_path / "data" / category / f"{subject}_{k}.npz", replace(clip, subject=str(subject)))

    for motion in ("walk", "squat", "wave", "clap"):
        write(f"utd_mhad/{motion}", motion)
    for motion in ("jog", "lift_box", "walk"):
        write(f"other/{motion}", motion)
    write("ui_prmd/m01_correct", "squat", clips=7)
    write("ui_prmd/m01_incorrect", "wave", clips=2)
    (tmp_path / "small.yaml").write_text(
        "batch: 16\nper_category: 4\n"
        "encoder: {frames: 16, seconds: 1.0, coefficients: 6, width: 8, blocks: 1, embedding: 16}\n"
    )

    def accuracy(jobs: str, methods: str, *more: str) -> str:
        return run(
            "benchmarks.accuracy", "--data", str(tmp_path / "data"), "--config", str(tmp_path / "small.yaml"),
            "--out", str(tmp_path / "out"), "--steps", "3", "--epochs", "1", "--motion-steps", "2", "--draws", "2",
            "--jobs-named", jobs, "--methods", methods, *more,
        )  # fmt: skip

    text = accuracy("fold-1,without-ui_prmd", "floor,ours")
    assert "fold-1 ours:" in text and "| ui_prmd | " in text
    made = {p.name: json.loads(p.read_text()) for p in (tmp_path / "out" / "accuracy").glob("*.json")}
    assert set(made) == {f"{j}-{m}.json" for j in ("fold-1", "without-ui_prmd") for m in ("floor", "ours")}
    # The floor's figures are those of `evaluate`, its unseen category the second by name; waving is no squat.
    data = load_set(tmp_path / "data" / "utd_mhad")
    names = np.array(data.names)[data.label]
    exact = few_shot(raw_dct(data.clips), names, data.subjects, draws=2, distance=raw_distance).categories
    floor = made["fold-1-floor.json"]["figures"]["as recorded"]
    assert floor["categories"] == pytest.approx(exact)
    assert floor["unseen"]["auroc"] == pytest.approx(exact[sorted(exact)[1]])
    assert made["without-ui_prmd-floor.json"]["figures"]["as recorded"]["unseen"]["auroc"] == 1
    assert len(made["fold-1-ours.json"]["figures"]) == 1 + len(CONDITIONS) and made["fold-1-ours.json"]["seed"] == 0
    # A job that has its file is not run again.
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "edge" / "bundles" / "base", bundle)
    again = accuracy("fold-1", "floor,paper,ours-generated", "--bundle", str(bundle))
    assert "fold-1 floor:" not in again and "fold-1 paper:" in again and "fold-1 ours-generated:" in again
    recipe = open_bundle(bundle).manifest.accuracy["recipe"]
    ours = made["fold-1-ours.json"]["figures"]["as recorded"]["seen"]["auroc"]
    assert recipe["utd_mhad_four_folds"]["as recorded"]["seen"] == round(ours, 4)
    assert set(recipe["one_set_left_out"]) == {"ui_prmd"}
    page = (tmp_path / "out" / "accuracy.md").read_text()
    assert page.strip() in again and "(1 of 4 folds)" in page and str(tmp_path) not in page
