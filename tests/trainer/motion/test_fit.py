"""A motion model's training, its configuration, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.errors import BundleError, ClipError, SettingsError
from tests.trainer.made import made
from trainer.datasets import ClipSet
from trainer.motion.config import load_motion_config
from trainer.motion.diffusion import (
    MotionNet,
)
from trainer.motion.fit import MotionTrainer, load_clip_sets, make_model, split, stretch
from trainer.motion.model import MANIFEST, WEIGHTS, open_motion
from trainer.progress import Stopped

from .small import SHAPE, silent, tiny

ROOT = Path(__file__).parents[3]


def test_stretches() -> None:
    clip = made("walk", 1, seconds=2.0)
    assert stretch(clip, 2.0, 0.5) is clip
    first, last = stretch(clip, 0.5, 0.0), stretch(clip, 0.5, 1.0)
    assert len(first.joints) == 11 and first.seconds == pytest.approx(0.5)
    np.testing.assert_array_equal(first.joints, clip.joints[:11])
    np.testing.assert_array_equal(last.joints, clip.joints[-11:])


def test_a_killed_run_ends_where_an_uninterrupted_one_does(sets: list[ClipSet], tmp_path: Path) -> None:
    whole = MotionTrainer(sets, tiny())
    whole.run(silent)

    def dies(step: int, loss: float, news: str) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MotionTrainer(sets, tiny()).run(dies, tmp_path / "c.pt")
    torch.manual_seed(99)
    seen: list[int] = []
    second = MotionTrainer(sets, tiny())
    second.run(lambda step, loss, news: seen.append(step), tmp_path / "c.pt")
    assert seen == [4, 5, 6, 7]
    for a, b in ((whole.net, second.net), (whole.average, second.average)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_run_that_is_told_to_stop_goes_on_where_it_was(sets: list[ClipSet], tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(Stopped):
        MotionTrainer(sets, tiny()).run(lambda step, *_: seen.append(step), tmp_path / "c.pt", lambda: seen[-1:] == [2])
    MotionTrainer(sets, tiny()).run(lambda step, *_: seen.append(step), tmp_path / "c.pt")
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_the_checkpoint_of_another_run_is_refused(sets: list[ClipSet], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    MotionTrainer(sets, tiny()).save(path)
    for trainer in (MotionTrainer(sets, tiny(seed=1)), MotionTrainer(sets[:1], tiny())):
        with pytest.raises(SettingsError, match=r"checkpoint\.pt.*another run.*delete it"):
            trainer.load(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(SettingsError, match=r"not a readable checkpoint.*delete it"):
        MotionTrainer(sets, tiny()).load(path)


def test_it_learns_what_it_is_shown(sets: list[ClipSet]) -> None:
    trainer = MotionTrainer(sets, tiny(steps=120, learning_rate=5e-3, average=0.9, validate_every=1000))
    before = trainer.validate()
    losses: list[float] = []
    trainer.run(lambda step, loss, news: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    after = trainer.validate()
    assert before and after and after < 0.8 * before


def test_held_out_people_are_not_trained_on(sets: list[ClipSet]) -> None:
    trainer = MotionTrainer(sets, tiny())
    assert {c.subject for c in split(sets, 4, held=True)} == {"4"} == {c.subject for c in trainer.test}
    assert "4" not in {c.subject for c in split(sets[:1], 4, held=False)}
    assert len(trainer.clips) + len(trainer.test) == sum(len(s.clips) for s in sets)
    with pytest.raises(SettingsError, match="hold_out 1 leaves no subject"):
        MotionTrainer(sets, tiny(hold_out=1))


def test_a_loss_that_is_no_number_stops_the_run(sets: list[ClipSet]) -> None:
    trainer = MotionTrainer(sets, tiny())
    with torch.no_grad():
        trainer.net.denoiser.place.fill_(float("nan"))
    with pytest.raises(SettingsError, match=r"loss is nan at step 1.*learning_rate"):
        trainer.run(silent)


# Configuration and files.


def test_the_committed_configuration_is_read() -> None:
    config = load_motion_config(ROOT / "configs/train-motion.yaml", seed=None, steps=9)
    assert config.steps == 9 and config.hold_out == 4 and "raw/*" in config.exclude


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 0", "'steps'"),
        ("widht: 3", "'widht'"),
        ("shape: {frames: 60, coefficients: 61}", "coefficients is 61"),
        ("shape: {width: 30, heads: 4}", "multiple of twice the heads"),
        ("- a\n- b", "must be 'name: value' lines"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_configurations_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"m\.yaml") as e:
        load_motion_config(path)
    assert said in str(e.value)


def test_the_model_is_what_was_trained_and_says_how(sets: list[ClipSet], tmp_path: Path) -> None:
    trainer = MotionTrainer(sets, tiny(steps=3, terms={"first": "made here"}))
    trainer.run(silent)
    wrote = make_model(trainer, tmp_path)
    found = open_motion(tmp_path)
    assert found.manifest == wrote.manifest and found.name == f"tiny-{found.manifest.weights[:12]}"
    for x, y in zip(found.net.state_dict().values(), trainer.average.state_dict().values(), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(found.net.denoiser.place, trainer.net.denoiser.place)
    record = found.manifest.training
    assert record["sets"][0]["terms"] == "made here" and record["sets"][0]["held_out_subjects"] == ["4"]
    assert record["sets"][1]["held_out_subjects"] == [] and record["held_out_loss"] > 0
    assert record["parameters"] == sum(p.numel() for p in MotionNet(SHAPE).parameters())


def test_broken_models_are_refused_with_the_reason(sets: list[ClipSet], tmp_path: Path) -> None:
    root = tmp_path / "m"
    with pytest.raises(BundleError, match=r"not a motion model.*haad-edge train-motion"):
        open_motion(root)
    make_model(MotionTrainer(sets, tiny()), root)
    good, weights = (root / MANIFEST).read_text(), (root / WEIGHTS).read_bytes()
    manifest = json.loads(good)

    def refused(said: str) -> None:
        with pytest.raises(BundleError, match=said) as e:
            open_motion(root)
        assert str(root) in str(e.value)

    for text, said in (
        ("{", "not JSON"),
        ("[]", "field"),
        (json.dumps(manifest | {"format": 2}), "format 2.*this program reads 1"),
        (json.dumps(manifest | {"span": -1}), "field 'span'"),
        (json.dumps(manifest | {"shape": manifest["shape"] | {"width": 24}}), "does not fit the shape"),
    ):
        (root / MANIFEST).write_text(text)
        refused(said)
    (root / MANIFEST).write_text(good)
    (root / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused("sha256 is not the one")
    (root / WEIGHTS).unlink()
    refused("cannot be read")
    (root / WEIGHTS).write_bytes(weights)
    assert open_motion(root).manifest.name == "tiny"


def test_nothing_to_train_on(folder: Path) -> None:
    with pytest.raises(ClipError, match="nothing to train on"):
        load_clip_sets(folder, tiny(exclude=["*"]))
    assert [s.name for s in load_clip_sets(folder, tiny(exclude=["second/*"]))] == ["first"]
