"""`train`, `build` and `evaluate`, one after the other on generated clips, as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.bundle import open_bundle
from edge.cli import main, make_app
from edge.commands.embedding import embed_folder
from edge.engine import open_engine
from edge.errors import HaadError, OutputError
from tests.trainer.made import write_set
from trainer.evaluate import few_shot
from trainer.progress import CHECKPOINT

CONFIG = """
name: small
batch: 24
per_category: 4
validate_every: 3
threads: 1
encoder: {frames: 16, seconds: 1.0, coefficients: 8, width: 16, blocks: 1, embedding: 16}
"""


def run(*command: object) -> str:
    """What the command prints; fails the test when it does not succeed."""
    result = CliRunner().invoke(make_app(), [str(c) for c in command])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The data, the bundle after `train` and `build`, and what `train` printed."""
    root = tmp_path_factory.mktemp("cli")
    data = write_set(root / "data", ("walk", "wave", "squat"))
    (root / "train.yaml").write_text(CONFIG)
    printed = run("train", "--data", data, "--out", root / "b", "--config", root / "train.yaml", "--steps", 4)
    assert printed.endswith("next: haad-edge build " + f"{root / 'b'} --target onnx")
    built = run("build", root / "b")
    assert "opset 17" in built and "parity with torch" in built
    return data, root / "b", printed


def test_train_leaves_a_bundle_and_no_checkpoint(trained: tuple[Path, Path, str]) -> None:
    _, bundle, printed = trained
    assert "data: 24 clips, 3 categories, 4 subjects" in printed
    assert re.search(r"step 3: AUROC on held-out subjects data [01]\.\d{4}", printed)
    m = open_bundle(bundle).manifest
    assert m.name == "small" and m.training["config"]["steps"] == 4 and m.architecture["width"] == 16
    assert m.opset == 17 and max(m.parity["embedding"], m.parity["distance"]) <= 1e-4
    assert not (bundle / CHECKPOINT).exists()


def test_evaluate_writes_what_it_measured(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    data, bundle, _ = trained
    out = tmp_path / "deep/result.json"
    printed = run("evaluate", "--data", data, "--bundle", bundle, "--draws", 5, "--seed", 3, "--json", out)
    result = json.loads(out.read_text())
    model = open_bundle(bundle)
    assert result.keys() >= {
        "data", "model", "shots", "draws", "split", "seed", "categories", "low", "high", "mean", "interval", "clips",
    }  # fmt: skip
    assert result["data"] == str(data) and result["model"] == model.model
    clips = embed_folder(data, model, open_engine(model))
    expected = few_shot(clips.embedding, np.array(clips.category), np.array(clips.subject), draws=5, seed=3)
    assert {k: result[k] for k in expected.as_dict()} == json.loads(json.dumps(expected.as_dict()))
    assert result["seed"] == 3 and set(result["categories"]) == {"walk", "wave", "squat"}
    assert result["mean"] == expected.mean and result["clips"] == 24 and result["shots"] == 3
    assert f"{expected.mean:.4f}" in printed and "24 clips, 5 support draws, seed 3" in printed


def test_evaluate_names_the_clips_it_left_out(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", ("walk", "wave"), subjects=2, trials=3)
    (data / "walk/broken.npz").write_bytes(b"")
    printed = run("evaluate", "--data", data, "--bundle", trained[1], "--draws", 2, "--split", "random")
    assert "left out:" in printed and "broken.npz" in printed and "12 clips" in printed


def test_clips_whose_axes_seem_wrong_are_told_of(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    data, bundle, printed = trained
    over = tmp_path / "over"
    run("axes", data, "--to", "x,-y,-z", "--out", over)
    evaluate = ("--bundle", bundle, "--draws", 2, "--no-floor")
    assert "heads are below hips" in run("evaluate", "--data", over, *evaluate)
    train = ("--out", tmp_path / "b", "--config", bundle.parent / "train.yaml", "--steps", 1)
    assert "over: heads are below hips" in run("train", "--data", over, *train)
    assert "heads" not in printed + run("evaluate", "--data", data, *evaluate)


def test_train_goes_on_from_its_checkpoint(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    from trainer.config import load_config
    from trainer.fit import Trainer, load_sets

    data, bundle, _ = trained
    config = bundle.parent / "train.yaml"
    settings = load_config(config, steps=4)
    half = Trainer(load_sets(data, settings), settings)
    batches = half.sampler.batches()
    for _ in range(2):
        half.train_step(next(batches))
    half.save(tmp_path / "b" / CHECKPOINT)
    again = ("train", "--data", data, "--out", tmp_path / "b", "--config", config, "--steps", 4)
    run(*again)
    made = (tmp_path / "b" / "manifest.json").read_bytes()
    assert open_bundle(tmp_path / "b").manifest.encoder == open_bundle(bundle).manifest.encoder
    refused = CliRunner().invoke(make_app(), [str(c) for c in again])
    assert isinstance(refused.exception, OutputError) and "the result of an earlier training" in str(refused.exception)
    assert (tmp_path / "b" / "manifest.json").read_bytes() == made


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("train", "--data", "absent", "--out", "b"), "absent: no such folder"),
        (("train", "--data", ".", "--out", "b"), "it has neither */*.npz nor */*/*.npz"),
        (("train", "--data", ".", "--out", "b", "--steps", "0"), "'steps'"),
        (("build", "absent"), "absent: not a bundle"),
        (("evaluate", "--data", ".", "--bundle", "absent"), "absent: not a bundle"),
    ],
)
def test_errors_are_texts_and_not_tracebacks(
    command: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["haad-edge", *command])
    with pytest.raises(SystemExit) as e:
        main()
    printed = capsys.readouterr().err
    assert e.value.code == HaadError.exit_code == 2
    assert printed.startswith("error: ") and said in printed and "Traceback" not in printed
    assert not (tmp_path / "b").exists()


def test_a_graph_that_was_not_built_is_asked_for(
    trained: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bundle, _ = trained
    (tmp_path / "b").mkdir()
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["encoder.onnx"]
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr("sys.argv", ["haad-edge", "evaluate", "--data", str(data), "--bundle", str(tmp_path / "b")])
    with pytest.raises(SystemExit):
        main()
    assert f"next: haad-edge build {tmp_path / 'b'} --target onnx" in capsys.readouterr().err


def test_unknown_splits_and_targets_are_refused(trained: tuple[Path, Path, str]) -> None:
    data, bundle, _ = trained
    for command in (
        ("evaluate", "--data", data, "--bundle", bundle, "--split", "person"),
        ("build", bundle, "--target", "abacus"),
    ):
        result = CliRunner().invoke(make_app(), [str(c) for c in command])
        assert result.exit_code == 2 and ("--split" in result.output or "--target" in result.output)
