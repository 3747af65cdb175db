"""Generated clips in a training run: who gets them, and who must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.made import tiny
from trainer.datasets import ClipSet, held_out
from trainer.fit import Trainer
from trainer.motion.config import MotionConfig
from trainer.motion.diffusion import MotionShape
from trainer.motion.fit import MotionTrainer, make_model
from trainer.motion.generate import GENERATED, widen
from trainer.motion.model import open_motion


@pytest.fixture(scope="module")
def motion(sets: list[ClipSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a motion model."""
    root = tmp_path_factory.mktemp("motion")
    shape = MotionShape(frames=24, coefficients=8, width=16, layers=1, heads=2)
    trainer = MotionTrainer(sets, MotionConfig(name="tiny", steps=2, batch=8, span=1.0, shape=shape))
    trainer.run(lambda step, loss, news: None)
    make_model(trainer, root)
    return root


def test_a_widened_set_has_new_clips_of_the_same_category_and_person(sets: list[ClipSet], motion: Path) -> None:
    first = sets[0]
    n = len(first.clips)
    wide = widen(first, open_motion(motion), 2, seed=3)
    assert len(wide.clips) == len(wide.paths) == len(wide.label) == 3 * n and wide.clips[:n] == first.clips
    assert all(c.source.startswith(GENERATED) for c in wide.clips[n:])
    for i, clip in enumerate(wide.clips[n:]):
        source = i // 2
        assert wide.label[n + i] == first.label[source] and clip.subject == first.clips[source].subject
    assert not np.array_equal(wide.clips[n].joints, wide.clips[n + 1].joints)
    assert len(first.clips) == n and len(first.label) == n  # as it was


def test_a_run_with_a_motion_model_widens_what_it_trains_on_and_nothing_else(sets: list[ClipSet], motion: Path) -> None:
    plain = Trainer(sets, tiny(hold_out=4))
    wide = Trainer(sets, tiny(hold_out=4, motion=motion, generated=2, strength=0.2))
    for before, after, s in zip(plain.sampler.sets, wide.sampler.sets, sets, strict=True):
        made = [c for c in after.clips if c.source.startswith(GENERATED)]
        assert len(made) == 2 * len(before.clips) and len(after.clips) == 3 * len(before.clips)
        assert not {c.subject for c in made} & set(s.subjects[held_out(s.subjects, 4)].tolist())
        assert "strength 0.2" in made[0].source
    assert [len(s.clips) for s in wide.sets] == [len(s.clips) for s in sets]  # what is validated and calibrated on
    wide.run(lambda step, loss, news: None)
    assert wide.identity()["config"]["motion"] == str(motion)
