"""`train-motion`, `motion-report` and `support grow`, one after the other on generated clips, as a user runs them."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edge.cli import main, make_app
from edge.clip import load_clip, save_clip
from edge.errors import ClipError, OutputError, SettingsError
from tests.docs.pages import under
from tests.trainer.made import made, write_set
from trainer.motion import cli as motion_cli
from trainer.motion.config import MotionConfig
from trainer.motion.diffusion import MotionShape
from trainer.motion.fit import MotionTrainer, load_clip_sets
from trainer.motion.generate import GENERATED, Recipe, grow, is_generated, ungrow
from trainer.motion.model import open_motion
from trainer.progress import CHECKPOINT

CONFIG = """
name: small
batch: 8
validate_every: 3
span: 1.0
shape: {frames: 24, coefficients: 8, width: 16, layers: 1, heads: 2}
"""


def run(*command: object) -> str:
    """What the command prints; fails the test when it does not succeed."""
    result = CliRunner().invoke(make_app(), [str(c) for c in command])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The data, the motion model, and what `train-motion` printed."""
    root = tmp_path_factory.mktemp("motion")
    data = write_set(root / "data", ("walk", "wave", "squat"))
    (root / "motion.yaml").write_text(CONFIG)
    printed = run("train-motion", "--data", data, "--out", root / "m", "--config", root / "motion.yaml", "--steps", 4)
    return data, root / "m", printed


@pytest.fixture
def support(tmp_path: Path) -> Path:
    return write_set(tmp_path / "support", ("walk", "wave"), subjects=1)


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_training_leaves_a_model_and_no_checkpoint(trained: tuple[Path, Path, str]) -> None:
    _, root, printed = trained
    assert "18 clips to train on, 6 clips of held-out people" in printed and "step 3: held-out loss" in printed
    assert printed.endswith(f"next: haad-edge motion-report --motion {root} --data {root.parent / 'data'} "
                            f"--out {root / 'report'}")  # fmt: skip
    assert sorted(p.name for p in root.iterdir() if p.is_file()) == ["motion.json", "motion.safetensors"]
    assert open_motion(root).manifest.training["config"]["steps"] == 4


def test_training_goes_on_from_its_checkpoint(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    from trainer.motion.config import load_motion_config

    data, root, _ = trained
    config = root.parent / "motion.yaml"
    settings = load_motion_config(config, steps=4)
    half = MotionTrainer(load_clip_sets(data, settings), settings)
    half.train_step()
    half.save(tmp_path / "m" / CHECKPOINT)
    again = ("train-motion", "--data", data, "--out", tmp_path / "m", "--config", config, "--steps", 4)
    run(*again)
    assert open_motion(tmp_path / "m").manifest.weights == open_motion(root).manifest.weights
    refused = CliRunner().invoke(make_app(), [str(c) for c in again])
    assert isinstance(refused.exception, OutputError) and "the result of an earlier training" in str(refused.exception)


def test_the_report_is_printed_and_written(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    data, root, _ = trained
    printed = run("motion-report", "--motion", root, "--data", data, "--out", tmp_path / "r", "--clips", 3)
    assert "3 clips of people held out" in printed and f"{tmp_path / 'r'}: quality.json, and 3 pictures" in printed
    assert json.loads((tmp_path / "r/quality.json").read_text())["clips"] == 3


def test_growing_can_be_repeated_and_undone(trained: tuple[Path, Path, str], support: Path) -> None:
    before = content(support)
    printed = run("support", "grow", support, "--motion", trained[1], "--per-clip", 2)
    assert "walk: 4 generated clips" in printed and "8 clips by small-" in printed
    grown = content(support)
    assert {k: grown[k] for k in before} == before and len(grown) == 12
    assert "walk/s1_t1.gen0.npz" in grown and "wave/s1_t2.gen1.npz" in grown
    clip = load_clip(support / "walk/s1_t1.gen0.npz")
    assert clip.source.startswith(GENERATED) and clip.subject == "1"
    assert clip.joints.shape == (21, 15, 3)  # the model's second, at 20 frames a second

    run("support", "grow", support, "--motion", trained[1], "--per-clip", 2)
    assert content(support) == grown
    run("support", "grow", support, "--motion", trained[1], "--seed", 1)
    other = content(support)
    assert len(other) == 8 and other["walk/s1_t1.gen0.npz"] != grown["walk/s1_t1.gen0.npz"]

    assert "4 generated clips removed" in run("support", "grow", support, "--remove")
    assert content(support) == before
    assert "0 generated clips removed" in run("support", "grow", support, "--remove")


def test_growing_elsewhere_leaves_the_folder_alone(
    trained: tuple[Path, Path, str], support: Path, tmp_path: Path
) -> None:
    before = content(support)
    run("support", "grow", support, "--motion", trained[1], "--out", tmp_path / "grown", "--strength", 1, "--keep", 0.5)
    assert content(support) == before
    grown = content(tmp_path / "grown")
    assert {k: grown[k] for k in before} == before and len(grown) == 8
    assert load_clip(tmp_path / "grown/walk/s1_t1.gen0.npz").source.endswith("strength 1, keep 0.5, seed 0")


def test_a_real_clip_of_a_generated_ones_name_is_never_touched(trained: tuple[Path, Path, str], support: Path) -> None:
    real = support / "walk/mine.gen0.npz"
    save_clip(real, made("walk", 3))
    # And one whose source says that it is generated, but whose name does not.
    copied = support / "walk/taken_over.npz"
    run("support", "grow", support, "--motion", trained[1])
    shutil.copy(support / "walk/s1_t1.gen0.npz", copied)
    assert not is_generated(real) and not is_generated(copied)
    model = open_motion(trained[1])
    done = grow(support, model)
    assert done.written == {"walk": 4, "wave": 2}
    ungrow(support)
    assert real.exists() and copied.exists()
    save_clip(support / "walk/mine.npz", made("walk", 2))
    before = content(support)
    with pytest.raises(ClipError, match=r"mine\.gen0\.npz: in the way of a generated clip"):
        grow(support, model)
    assert content(support) == before  # nothing was written at all


def test_clips_that_cannot_be_read_are_named(trained: tuple[Path, Path, str], support: Path) -> None:
    (support / "walk/broken.npz").write_bytes(b"")
    (support / "walk/broken.gen0.npz").write_bytes(b"")
    printed = run("support", "grow", support, "--motion", trained[1])
    assert "left out:" in printed and "broken.npz" in printed and "walk: 2 generated" in printed
    assert (support / "walk/broken.gen0.npz").exists()
    for path in support.glob("w*/*.npz"):
        path.write_bytes(b"")
    with pytest.raises(ClipError, match="nothing to grow"):
        grow(support, open_motion(trained[1]))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("train-motion", "--data", "absent", "--out", "m"), "absent: no such folder"),
        (("train-motion", "--data", ".", "--out", "m", "--steps", "0"), "'steps'"),
        (("train-motion", "--data", ".", "--out", "m", "--seed", "-1"), "'seed'"),
        (("motion-report", "--motion", "absent", "--data", ".", "--out", "r"), "absent: not a motion model"),
        (("support", "grow", "absent", "--remove"), "absent: no such folder"),
        (("support", "grow", ".", "--motion", "absent"), "absent: not a motion model"),
    ],
)
def test_errors_are_texts_and_not_tracebacks(
    command: tuple[str, ...],
    said: str,
    trained: tuple[Path, Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["haad-edge", *(str(trained[1]) if c == "MODEL" else c for c in command)])
    with pytest.raises(SystemExit) as e:
        main()
    printed = capsys.readouterr().err
    assert e.value.code == 2 and printed.startswith("error: ") and said in printed and "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [{"strength": 2}, {"strength": float("nan")}, {"keep": 1}])
def test_a_recipe_of_no_share_is_refused_by_its_name(share: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=rf"{next(iter(share))} is .*it must be between"):
        Recipe(**share)


def test_growing_needs_a_model(support: Path) -> None:
    result = CliRunner().invoke(make_app(), ["support", "grow", str(support)])
    assert result.exit_code == 2 and "--motion" in result.output


def test_the_group_is_shared_with_other_packages() -> None:
    app = typer.Typer()
    motion_cli.register(app)  # the group does not exist before
    assert [g.name for g in app.registered_groups] == ["support"]
    group = typer.main.get_command(make_app()).commands["support"]  # type: ignore[attr-defined]
    assert {"show", "grow"} <= set(group.commands)


def test_the_tables_of_the_page() -> None:
    def shown(default: object) -> str:
        return "–" if default in ([], {}) else str(default)

    config = MotionConfig()
    assert [r[:2] for r in under("docs/generate.md", "## Configuration")] == [
        [n, "–" if n == "shape" else shown(getattr(config, n))] for n in MotionConfig.model_fields
    ]
    assert [r[:2] for r in under("docs/generate.md", "Under `shape`:")] == [
        [f.name, shown(getattr(config.shape, f.name))] for f in fields(MotionShape)
    ]
    group = typer.main.get_command(make_app()).commands["support"]  # type: ignore[attr-defined]
    options = {p.opts[0]: p.default for p in group.commands["grow"].params if p.opts[0].startswith("--")}
    rows = {r[0]: r[1] for r in under("docs/generate.md", "## How it makes a clip")}
    assert rows.keys() | {"--motion"} == options.keys()
    assert all(default == "–" or default == str(options[name]) for name, default in rows.items())
    recipe = Recipe()
    assert (options["--strength"], options["--keep"]) == (recipe.strength, recipe.keep)


def test_generated_clips_are_motion(trained: tuple[Path, Path, str], support: Path) -> None:
    run("support", "grow", support, "--motion", trained[1])
    for path in support.glob("*/*.gen0.npz"):
        clip, real = load_clip(path), load_clip(path.with_name(path.name.replace(".gen0", "")))
        assert clip.visible.all() and np.isfinite(clip.joints).all()
        assert np.abs(clip.joints.mean((0, 1)) - real.joints.mean((0, 1))).max() < 0.6
