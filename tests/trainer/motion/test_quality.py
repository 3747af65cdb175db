"""Each measure on motions whose value is known, and the report that puts them side by side."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge.clip import Clip
from edge.errors import ClipError
from edge.motion import make_motion
from edge.skeleton import CORE15, J
from tests.trainer.motion.small import silent, tiny
from trainer.datasets import ClipSet, load_set
from trainer.motion import diffusion
from trainer.motion.fit import MotionTrainer, make_model
from trainer.motion.model import MotionModel, open_motion
from trainer.motion.quality import (
    bone_drift,
    copied,
    distances,
    diversity,
    foot_sliding,
    group_diversity,
    jerk,
    nearest,
)
from trainer.motion.report import FREE, MEASURES, WAYS, gather, measure, pictures, rows, write_report
from trainer.motion.stick import FIGURES, Strip, draw_strips

POSE = make_motion("stand", seconds=1, seed=0).joints[0]
L_WRIST, L_ANKLE, R_ANKLE = (CORE15.index(n) for n in ("l_wrist", "l_ankle", "r_ankle"))


def still(frames: int = 21, fps: float = 10) -> Clip:
    return Clip(np.tile(POSE, (frames, 1, 1)).astype(np.float32), np.ones((frames, J), np.float32), fps)


def test_bone_drift_is_deviation_over_mean() -> None:
    clip = still(20)
    assert bone_drift(clip) == pytest.approx(0, abs=1e-4)
    # One bone of 14 swings between 90 % and 110 % of its length: 10 % for it.
    elbow = clip.joints[:, L_WRIST - 1]
    factor = np.where(np.arange(20) % 2, 1.1, 0.9)[:, None]
    clip.joints[:, L_WRIST] = elbow + (clip.joints[:, L_WRIST] - elbow) * factor
    assert bone_drift(clip) == pytest.approx(10 / 14, rel=1e-3)
    clip.visible[:, L_WRIST] = 0
    assert bone_drift(clip) == pytest.approx(0, abs=1e-4)
    assert np.isnan(bone_drift(Clip(clip.joints, np.zeros_like(clip.visible), 10)))


def test_foot_sliding_is_the_speed_of_a_standing_foot() -> None:
    clip = still()
    assert foot_sliding(clip) == 0
    t = np.arange(21) / clip.fps
    clip.joints[..., 0] += 0.3 * t[:, None]
    clip.joints[..., 2] -= 0.4 * t[:, None]
    assert foot_sliding(clip) == pytest.approx(0.5, rel=1e-3)
    # A foot in the air may move in any way; only its motion near the ground counts.
    lifted = still()
    up = (np.arange(21) >= 10).astype(np.float32)
    lifted.joints[:, L_ANKLE, 1] += 0.3 * up
    lifted.joints[:, L_ANKLE, 0] += up * np.arange(21)
    assert foot_sliding(lifted) == 0
    lifted.visible[:, [L_ANKLE, R_ANKLE]] = 0
    assert np.isnan(foot_sliding(lifted))


def test_jerk_is_the_third_derivative() -> None:
    clip = still(31, fps=10)
    assert jerk(clip) == pytest.approx(0, abs=1e-3)
    t = np.arange(31) / clip.fps
    # x = 2 t³ has a third derivative of 12 m/s³ whatever the frame rate; x = t² has none.
    clip.joints[..., 0] += (2 * t**3)[:, None]
    assert jerk(clip) == pytest.approx(12, rel=1e-2)
    parabola = still(31)
    parabola.joints[..., 1] += (t**2)[:, None]
    assert jerk(parabola) < 0.1
    clip.visible[::3] = 0
    assert np.isnan(jerk(clip))


def test_distance_is_in_metres_of_a_joint() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 6 * 45)).astype(np.float32)
    b = a + np.tile(np.array([0.3, 0.0, 0.4], np.float32), 6 * 15)
    d = distances(a, b)
    np.testing.assert_allclose(np.diag(d), 0.5, atol=1e-3)
    expected = np.sqrt(((a[0] - b[3]).reshape(6, 15, 3) ** 2).sum(-1).mean())
    assert d[0, 3] == pytest.approx(expected, rel=1e-4)
    found, which = nearest(b[[2, 0]], a)
    assert which.tolist() == [2, 0]
    np.testing.assert_allclose(found, 0.5, atol=1e-3)


def test_diversity_is_the_mean_over_pairs() -> None:
    row = np.zeros((3, 45), np.float32)
    row[1, 0::3], row[2, 0::3] = 1, 4  # 1, 3 and 4 metres apart
    assert diversity(row) == pytest.approx(8 / 3, rel=1e-5)
    assert diversity(row[[1, 1]]) == 0 and np.isnan(diversity(row[:1]))
    # Groups of 1 m and 0 m, and a lone row that says nothing.
    assert group_diversity(row[[0, 1, 2, 2, 0]], np.array([7, 7, 3, 3, 5])) == pytest.approx(0.5, abs=1e-6)


def test_copying_shows() -> None:
    real = np.array([0.2, 0.3, 0.4], np.float32)
    assert copied(np.zeros(3, np.float32), real) == 1 and copied(real, real) == 0
    assert copied(np.array([0.1, 0.5, 0.5], np.float32), real) == pytest.approx(1 / 3)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample in few steps: they cost time, and an untrained model gains nothing from more."""
    monkeypatch.setattr(diffusion, "sample", partial(diffusion.sample, steps=4))


@pytest.fixture(scope="module")
def model(sets: list[ClipSet], tmp_path_factory: pytest.TempPathFactory) -> MotionModel:
    trainer = MotionTrainer(sets, tiny(steps=3))
    trainer.run(silent)
    root = tmp_path_factory.mktemp("motion")
    make_model(trainer, root)
    return open_motion(root)


def test_only_people_held_out_are_measured(model: MotionModel, folder: Path) -> None:
    m = gather(model, folder, 100)
    first, second = load_set(folder / "first"), load_set(folder / "second")
    assert len(m.source) == (first.subjects == "4").sum() == 8
    assert len(m.training) == len(first.clips) + len(second.clips) - 8
    assert {c.subject for c in m.source} == {"4"}
    assert all(c.seconds <= 1.0001 for c in m.source + m.training)  # the model's span
    # Groups are (set, category): the walks of the two sets are different ones.
    assert len(set(m.training_group.tolist())) == 7 and set(m.source_group.tolist()) == {0, 1, 2, 3}
    assert set(m.training_origin.tolist()) == {0, 1} and set(m.source_origin.tolist()) == {0}
    few = gather(model, folder, 3)
    assert len(few.source) == 3 and len(set(few.source_group.tolist())) == 3
    with pytest.raises(ClipError, match="not the data of tiny-"):
        gather(model, folder / "second", 100)


def test_the_report_tells_copies_from_new_clips(
    model: MotionModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = gather(model, folder, 8)
    honest = measure(model, m, 0)
    assert list(honest) == ["real", "real, smoothed", *WAYS, *FREE]
    assert honest["real"]["from_source_m"] == 0 and honest["real"]["nearer_than_real"] == 0
    for figures in honest.values():
        assert list(figures) == list(MEASURES) and np.isfinite(list(figures.values())).all()
    assert honest["varied 0.15"]["from_source_m"] < honest["varied 0.5"]["from_source_m"]

    monkeypatch.setattr(
        "trainer.motion.report.generate", lambda model, clips, n, **_: [m.training[0] for _ in clips for _ in range(n)]
    )
    copies = measure(model, m, 0)["completed"]
    assert copies["nearest_training_m"] == pytest.approx(0, abs=1e-3) and copies["diversity_m"] < 1e-3
    assert copies["nearer_than_real"] == 1
    assert copies["category_kept"] == pytest.approx((m.source_group == m.training_group[0]).mean())


def test_rows_do_not_know_place_or_heading(model: MotionModel, folder: Path) -> None:
    clip = gather(model, folder, 2).source[0]
    turned = Clip((clip.joints[..., [2, 1, 0]] * [-1, 1, 1] + [5, 0, 5]).astype(np.float32), clip.visible, clip.fps)
    assert distances(rows(model, [clip]), rows(model, [turned]))[0, 0] < 1e-2


def test_the_report_is_written(model: MotionModel, folder: Path, tmp_path: Path) -> None:
    table = write_report(model, folder, tmp_path / "r", most=3, seed=0)
    assert table.row_count == len(MEASURES) and len(table.columns) == 3 + len(WAYS) + len(FREE)
    record = json.loads((tmp_path / "r/quality.json").read_text())
    assert record["model"] == model.name and record["clips"] == 3 and set(record["figures"]["real"]) == set(MEASURES)
    drawn = sorted(p.name for p in (tmp_path / "r").glob("*.svg"))
    assert len(drawn) == 3 and all(n.startswith("first_") for n in drawn)


def test_pictures_show_every_way(model: MotionModel, folder: Path) -> None:
    one, same = (pictures(model, gather(model, folder, 3), 0, 1) for _ in range(2))
    assert one == same
    (text,) = one.values()
    for label in ("real", "noised 0.5", *WAYS):
        assert f">{label}" in text


def test_a_strip_draws_the_pose() -> None:
    body = np.tile(POSE - POSE[0], (5, 1, 1)).astype(np.float32)
    text = draw_strips("a < b", [Strip("one", body, kept=2), Strip("two", body)])
    assert text.startswith("<svg ") and text.rstrip().endswith("</svg>") and "a &lt; b" in text
    assert text.count("<circle ") == 2 * FIGURES
    grey = [g for g in text.split("<g ")[1:] if "#999" in g]
    assert len(grey) == 4  # of ten figures over five frames, those of the first two
    wild = body.copy()
    wild[2] = 1e6
    assert "nan" not in draw_strips("", [Strip("", wild)]).lower()
