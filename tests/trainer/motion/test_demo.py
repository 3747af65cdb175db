"""The demo's clips, made with a tiny motion model: the same files each time, of the shape that the demo plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.clip import BRIDGE_S, load_clip
from edge.commands.demo import CLIPS, NORMAL, SCRIPT, SHOTS
from edge.errors import ClipError
from edge.motion import make_motion
from trainer.datasets import ClipSet
from trainer.motion.config import MotionConfig
from trainer.motion.demo import ACTS, loop_length, main, vary
from trainer.motion.diffusion import MotionShape
from trainer.motion.fit import MotionTrainer, make_model
from trainer.motion.generate import GENERATED
from trainer.motion.model import MotionModel, open_motion


@pytest.fixture(scope="module")
def model(sets: list[ClipSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a motion model."""
    root = tmp_path_factory.mktemp("motion")
    shape = MotionShape(frames=24, coefficients=8, width=16, layers=1, heads=2)
    trainer = MotionTrainer(sets, MotionConfig(name="tiny", steps=2, batch=8, span=2.0, shape=shape))
    trainer.run(lambda step, loss, news: None)
    make_model(trainer, root)
    return root


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.npz")}


def test_the_command_makes_the_shipped_files_anew_and_the_same_each_time(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        main(["--motion", str(model), "--out", str(tmp_path / name)])
    assert f"{SHOTS * len(NORMAL) + len(ACTS)} clips" in capsys.readouterr().out.replace("\n", " ")
    made = content(tmp_path / "a")
    assert made == content(tmp_path / "b") and set(made) == set(content(CLIPS))
    for name in made:
        new, old = load_clip(tmp_path / "a" / name), load_clip(CLIPS / name)
        # The formulas are the same, so any difference comes from the model.
        assert new.joints.shape == old.joints.shape and (new.fps, new.subject) == (old.fps, old.subject)
        assert new.source.startswith(f"{GENERATED}tiny-") and not np.array_equal(new.joints, old.joints)


def test_there_is_an_act_for_everything_in_the_script() -> None:
    assert set(ACTS) == {name for acts in SCRIPT.values() for name, _ in acts}


@pytest.fixture
def tiny(model: Path) -> MotionModel:
    return open_motion(model)


def test_a_round_ends_where_a_looped_clip_begins_its_bridge(tiny: MotionModel) -> None:
    source = make_motion("wave", seconds=12, fps=20, seed=4)
    frames = loop_length(source, (4, 8))
    clip = vary(tiny, source, 0.2, frames)
    assert clip.seconds + BRIDGE_S == pytest.approx(frames / 20)
    ahead = np.linalg.norm(clip.joints[0] - clip.joints[-1], axis=-1) / BRIDGE_S
    assert ahead.max() < 1.2 * np.linalg.norm(np.diff(clip.joints, axis=0), axis=-1).max() * 20


@pytest.mark.parametrize("seconds", [1.0, 2.0, 2.1, 7.3])
def test_a_source_of_any_length_is_remade_whole_and_keeps_its_bones(tiny: MotionModel, seconds: float) -> None:
    source = make_motion("walk", seconds=seconds, fps=20, seed=1)
    clip = vary(tiny, source, 0.2)
    assert clip.joints.shape == source.joints.shape and clip.joints.dtype == np.float32
    moved = np.linalg.norm(clip.joints - source.joints, axis=-1).mean()
    assert 0.001 < moved < 0.5
    for a, b in ((4, 5), (10, 11), (1, 2)):  # upper arm, thigh, neck to head
        new, old = (np.linalg.norm(c.joints[:, b] - c.joints[:, a], axis=-1) for c in (clip, source))
        np.testing.assert_allclose(new, old, atol=0.003)


def test_a_motion_that_never_comes_round_is_said_so() -> None:
    with pytest.raises(ClipError, match="made1 never comes within") as e:
        loop_length(make_motion("walk", seconds=8, fps=20, seed=1), (2, 5))
    assert "another seed" in (e.value.fix or "")


def test_a_folder_without_a_model_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--motion", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
