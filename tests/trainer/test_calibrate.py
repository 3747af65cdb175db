"""The limit: that it means what it says on the windows it was set by, and its parts by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainer.calibrate as calibrate_module
from edge.clip import Clip
from edge.score import Scorer, limit_of, match, own_spread
from edge.support import clip_windows
from tests.trainer.made import tiny
from trainer.calibrate import COHORT, TARGET, _fit, calibrate
from trainer.datasets import ClipSet

D = 12


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def marked_set(categories: int = 12, subjects: int = 8, trials: int = 2) -> ClipSet:
    """Clips that are only a number: their category, written into every joint, plus a trial's small offset."""
    clips, label = [], []
    for c in range(categories):
        for s in range(subjects):
            for t in range(trials):
                joints = np.full((41, 15, 3), c + 0.01 * (s * trials + t), np.float32)
                clips.append(Clip(joints, np.ones((41, 15), np.float32), 20, str(s + 1)))
                label.append(c)
    return ClipSet("marked", clips, [Path()] * len(clips), np.array(label), [f"c{c}" for c in range(categories)], "")


def embed(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """A stand-in for the encoder: its category's centre, the clip's own offset, and noise for each window."""
    mark = float(joints[0, 0, 0, 0])
    centre = np.random.default_rng(math.floor(mark + 1e-4)).standard_normal(D)
    own = np.random.default_rng(round(mark * 100) + 7).standard_normal(D)
    noise = np.random.default_rng(round(mark * 100) + 100_000).standard_normal((len(joints), D))
    return unit(centre + 0.35 * own + 0.15 * noise)


@pytest.fixture(scope="module")
def calibrated() -> tuple[dict[str, np.ndarray], dict[str, object], list[np.ndarray]]:
    """Arrays, figures, and every episode that the calibration drew."""
    s = marked_set()
    episodes: list[np.ndarray] = []
    inner = calibrate_module._episode

    def spy(*args: object) -> np.ndarray | None:
        found = inner(*args)  # type: ignore[arg-type]
        if found is not None:
            episodes.append(found)
        return found

    with pytest.MonkeyPatch.context() as m:
        m.setattr(calibrate_module, "_episode", spy)
        data, figures = calibrate([s], [np.isin(s.subjects, ["4", "8"])], embed, tiny())
    with np.load(io.BytesIO(data), allow_pickle=False) as z:
        return {k: z[k] for k in z.files}, figures, episodes


def limit_by_hand(weights: np.ndarray, *levels: float) -> float:
    return math.exp(weights[0] + sum(w * math.log(x + 1e-3) for w, x in zip(weights[1:], levels, strict=True)))


def test_the_target_share_of_normal_windows_lies_above_the_limit(calibrated) -> None:  # type: ignore[no-untyped-def]
    arrays, figures, episodes = calibrated
    assert len(episodes) == 12 * 3
    for key, wanted in (("weights", True), ("weights_one", False)):
        above, caught, size = [], [], 3 if wanted else 2
        for e in episodes:
            if bool(e[0, 2] > 0) != wanted:
                continue  # a lone clip has no spread of its own
            limit = limit_by_hand(arrays[key], *e[0, 1:size])
            above.append(e[e[:, 3] == 0, 0] > limit)
            caught.append(e[e[:, 3] == 1, 0] > limit)
        assert len(above) == (24 if wanted else 12)
        share = float(np.mean([x.mean() for x in above]))
        assert share <= TARGET + 1e-9 and share == pytest.approx(TARGET, abs=0.006)
        detected = float(np.mean([x.mean() for x in caught]))
        assert detected > 0.8
        assert figures[key]["anomalous_windows_above_limit"] == pytest.approx(detected, abs=0.002)
    assert figures["target_normal_above_limit"] == TARGET and figures["subjects"] == "held out"
    assert 0.95 < figures["window_auroc_3_shot"] <= 1


def test_the_cohort_is_even_and_of_the_training_subjects_alone(calibrated) -> None:  # type: ignore[no-untyped-def]
    cohort = calibrated[0]["cohort"].astype(np.float32)
    assert cohort.shape == (COHORT, D)
    s = marked_set()
    training = ~np.isin(s.subjects, ["4", "8"])
    everything = [embed(*clip_windows(c, 16, 1.0)) for c in s.clips]
    source = [int(np.argmax([(e @ row).max() for e in everything])) for row in cohort]
    assert training[source].all() and len(set(source)) > 0.8 * training.sum()
    assert np.bincount(s.label[source]).tolist() == [COHORT // 12] * 12


def test_an_episode_takes_its_support_and_its_tests_from_different_people() -> None:
    s = marked_set(categories=2, subjects=2, trials=4)
    mine = s.subjects == "1"
    places = {(0, True): [1, 0, 0], (0, False): [0.8, 0.6, 0], (1, True): [0, 0, 1], (1, False): [-1, 0, 0]}
    embedded = [np.float32([places[int(c), bool(m)]] * 5) for c, m in zip(s.label, mine, strict=True)]
    cohort = np.float32([[0.5, 0, 3**0.5 / 2]] * 4)
    rng = np.random.default_rng(0)
    rows = calibrate_module._episode(s, 0, 3, mine, ~mine, embedded, cohort, 0.05, rng)
    # cos 0.8 to the same action by the other person, −1 to the other action, 0.5 to the cohort; no spread.
    expected = [[0.2, 0.5, 0, 0]] * 20 + [[2, 0.5, 0, 1]] * 20
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert calibrate_module._episode(s, 0, 5, mine, ~mine, embedded, cohort, 0.05, rng) is None


def test_without_held_out_subjects_the_figures_say_so() -> None:
    s = marked_set(categories=3, subjects=3)
    data, figures = calibrate([s], [np.zeros(len(s.clips), bool)], embed, tiny())
    assert "training" in figures["subjects"]
    with np.load(io.BytesIO(data)) as z:
        assert z["weights"].shape == (3,) and z["weights_one"].shape == (2,)


def test_too_few_clips_fall_back_to_the_impostors_level() -> None:
    s = marked_set(categories=2, subjects=1, trials=1)
    data, figures = calibrate([s], [np.zeros(2, bool)], embed, tiny())
    with np.load(io.BytesIO(data)) as z:
        np.testing.assert_allclose(z["weights"], [math.log(0.5), 1, 0])
        np.testing.assert_allclose(z["weights_one"], [math.log(0.5), 1])
    assert figures["weights"]["episodes"] == 0 and figures["window_auroc_3_shot"] is None


def test_the_fit_finds_which_level_the_limit_follows() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(60):
        impostor, own = np.exp(rng.normal(-1.5, 0.6)), np.exp(rng.normal(-3, 0.6))
        normal = own * np.exp(rng.normal(0, 0.3, 200))
        anomalous = 6 * own * np.exp(rng.normal(0, 0.3, 200))
        d = np.concatenate([normal, anomalous])
        episodes.append(np.column_stack([d, np.full(400, impostor), np.full(400, own), np.repeat([0, 1], 200)]))
    weights, found = _fit(episodes, True)
    assert weights[1] == pytest.approx(0, abs=0.05) and weights[2] == pytest.approx(1, abs=0.08)
    # log limit = log own + the 98 % quantile of N(0, 0.3).
    assert weights[0] == pytest.approx(2.054 * 0.3, abs=0.3)
    assert found["pooled_window_auroc"] > 0.99 and found["anomalous_windows_above_limit"] > 0.98


def cloud(seed: int, n: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(np.eye(D)[0] + spread * rng.standard_normal((n, D)))


CALIBRATION = {
    "cohort": unit(np.random.default_rng(5).standard_normal((100, D))).astype(np.float16),
    "weights": np.array([0.2, 0.7, 0.4]),
    "weights_one": np.array([-0.5, 0.9]),
}


def test_the_limit_by_hand() -> None:
    clips = [cloud(1, 4, 0.2), cloud(2, 5, 0.2), cloud(3, 3, 0.2)]
    everything = np.concatenate(clips)
    impostor = np.quantile(
        [match(c[None], everything, 0.05)[0] for c in CALIBRATION["cohort"].astype(np.float32)], 0.05
    )
    left = []
    for i, clip in enumerate(clips):
        others = np.concatenate([c for k, c in enumerate(clips) if k != i])
        left += [match(w[None], others, 0.05)[0] for w in clip]
    assert own_spread(clips, 0.05) == pytest.approx(np.quantile(left, 0.9))
    expected = math.exp(0.2 + 0.7 * math.log(impostor + 1e-3) + 0.4 * math.log(np.quantile(left, 0.9) + 1e-3))
    assert limit_of(clips, CALIBRATION, 0.05) == pytest.approx(expected, rel=1e-6)

    assert own_spread(clips[:1], 0.05) is None
    alone = np.quantile(match(CALIBRATION["cohort"].astype(np.float32), clips[0], 0.05), 0.05)
    expected = math.exp(-0.5 + 0.9 * math.log(alone + 1e-3))
    assert limit_of(clips[:1], CALIBRATION, 0.05) == pytest.approx(expected, rel=1e-6)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_limit_falls_as_impostors_come_nearer(seed: int, shots: int) -> None:
    clips = [cloud(seed + i, 4, 0.2) for i in range(shots)]
    cohort = CALIBRATION["cohort"].astype(np.float32)
    limits = [
        limit_of(clips, CALIBRATION | {"cohort": unit(cohort + pull * np.eye(D)[0])}, 0.05) for pull in (0, 0.5, 1, 2)
    ]
    assert limits == sorted(limits, reverse=True) and limits[0] > 1.2 * limits[-1]


def test_the_limit_grows_with_the_clips_own_spread() -> None:
    direction = np.random.default_rng(0).standard_normal((3, 4, D))
    limits = []
    for spread in (0.02, 0.1, 0.3):
        clips = [unit(np.eye(D)[0] + spread * d) for d in direction]
        limits.append(limit_of(clips, CALIBRATION | {"weights": np.array([0.0, 0.0, 1.0])}, 0.05))
    assert limits[0] < limits[1] < limits[2]


def test_the_score_is_relative_to_the_nearest_categorys_limit() -> None:
    score, nearest = Scorer(np.array([0.1, 0.5]))(np.array([[0.2, 0.6], [0.05, 0.5], [0.3, 0.25]], np.float32))
    np.testing.assert_allclose(score, [1.2, 0.5, 0.5], rtol=1e-6)
    assert nearest.tolist() == [1, 0, 1]
