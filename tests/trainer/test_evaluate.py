"""Few-shot evaluation, compared with a plain loop, and on cases with one right answer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score, roc_curve

from edge.errors import ClipError
from edge.score import match
from trainer.confusion import GRID, confusions, roc_curves
from trainer.evaluate import Episode, Method, as_json, auroc, episodes, evaluate, few_shot
from trainer.protocols import Protocol, at_random, by_subject, leave_out


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clouds(seed: int = 0, spread: float = 0.6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three categories, four subjects, three clips each, around three centres that overlap."""
    rng = np.random.default_rng(seed)
    category = np.repeat(["kick", "run", "sit"], 12)
    subject = np.tile(np.repeat(["1", "2", "3", "4"], 3), 3)
    centre = np.repeat(rng.standard_normal((3, 6)), 12, axis=0)
    return unit(centre + spread * 2 * rng.standard_normal((36, 6))), category, subject


def plain_distance(e: np.ndarray, support: np.ndarray, tau: float) -> float:
    d = [1 - math.fsum(float(a) * float(b) for a, b in zip(e, s, strict=True)) for s in support]
    w = [math.exp(-x / tau) for x in d]
    return math.fsum(a * b for a, b in zip(w, d, strict=True)) / math.fsum(w)


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_it_is_the_loop_over_categories(tau: float) -> None:
    embedding, category, subject = clouds()
    # Six shots are all the clips that subjects 1 and 3 have of a category, so every draw is the same.
    found = few_shot(embedding, category, subject, shots=6, draws=2, distance=partial(match, temperature=tau))
    expected = {}
    for name in ("kick", "run", "sit"):
        support = [e for e, c, s in zip(embedding, category, subject, strict=True) if c == name and s in "13"]
        test = [(e, c != name) for e, c, s in zip(embedding, category, subject, strict=True) if s in "24"]
        expected[name] = roc_auc_score([y for _, y in test], [plain_distance(e, support, tau) for e, _ in test])
    assert found.categories == pytest.approx(expected, abs=1e-5)
    assert found.mean == pytest.approx(np.mean(list(expected.values())))
    assert 0.55 < found.mean < 0.97  # neither chance nor perfect, so that a wrong sign or split would show
    assert found.low == found.categories == found.high and found.interval == (found.mean, found.mean)
    assert (found.clips, found.shots, found.draws, found.split) == (36, 6, 2, "subject")


def test_separate_categories_are_told_apart_perfectly() -> None:
    embedding, category, subject = clouds(spread=0.02)
    for split in ("subject", "random"):
        found = few_shot(embedding, category, subject, split=split, draws=4)
        assert found.mean == 1 and set(found.categories.values()) == {1.0}
    # …and perfectly wrong if the test subjects' clips are opposite to the support's.
    opposite = np.where(np.isin(subject, ["2", "4"]), -1, 1)[:, None]
    assert few_shot(unit(embedding * opposite), category, subject, draws=4).mean == 0


def test_draws_follow_the_seed_and_give_the_interval() -> None:
    data = clouds()
    one, same, other = (few_shot(*data, shots=2, draws=8, seed=s) for s in (1, 1, 2))
    assert one == same and one.categories != other.categories
    assert one.interval[0] < one.mean < one.interval[1]
    for name, value in one.categories.items():
        assert one.low[name] <= value <= one.high[name]
    assert one.as_dict()["categories"] == one.categories


def test_a_random_split_does_not_test_on_the_support() -> None:
    # Four orthogonal clips of `a`, and clips of `b` between them: b is nearer to any three of a than the fourth is.
    a = np.eye(5)[:4]
    b = np.tile(np.array([[0.5, 0.5, 0.5, 0.5, 0.0]]), (4, 1))
    found = few_shot(unit(np.vstack([a, b])), np.repeat(["a", "b"], 4), np.repeat("1", 8), split="random", draws=5)
    assert found.categories["a"] == 0  # 0.75 or so if the three at distance 0 were counted
    assert found.categories["b"] == 1


def test_what_cannot_be_evaluated_is_said_and_how_to() -> None:
    embedding, category, subject = clouds()
    with pytest.raises(ClipError, match=r"'kick'.*has 6 clips.*support of 7.*--split random"):
        few_shot(embedding, category, subject, shots=7)
    with pytest.raises(ClipError, match="two categories"):
        few_shot(embedding[:12], category[:12], subject[:12])
    with pytest.raises(ClipError, match=r"two subjects.*--split random"):
        few_shot(embedding, category, np.repeat("1", 36))
    with pytest.raises(ClipError, match=r"'kick'.*has no clips of the test subjects"):
        few_shot(embedding, category, np.where(category == "kick", "1", subject))
    with pytest.raises(ClipError, match=r"has 12 clips"):
        few_shot(embedding, category, subject, shots=13, split="random")
    with pytest.raises(ClipError, match=r"none is left to judge"):
        few_shot(embedding, category, subject, shots=12, split="random")
    embedding[3] = np.nan
    with pytest.raises(ClipError, match="not all finite"):
        few_shot(embedding, category, subject)


def test_auroc_is_sklearns_ties_included() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        normal, other = rng.integers(0, 6, 9) / 4, rng.integers(1, 8, 14) / 4
        truth = np.repeat([0, 1], [9, 14])
        assert auroc(normal, other) == pytest.approx(roc_auc_score(truth, np.concatenate([normal, other])))


def test_masks_say_who_is_support_and_who_is_judged() -> None:
    embedding, category, _ = clouds()
    pool, test = np.arange(36) % 4 == 0, np.arange(36) % 4 == 1
    found = few_shot(embedding, category, category, shots=3, draws=2, protocol=Protocol("mine", "", pool, test))
    expected = {}
    for name in ("kick", "run", "sit"):
        support = embedding[pool & (category == name)]  # all three there are: every draw is the same
        expected[name] = roc_auc_score(
            category[test] != name, [plain_distance(e, support, 0.05) for e in embedding[test]]
        )
    assert found.categories == pytest.approx(expected, abs=1e-5) and found.split == "mine" and found.parts == {}


def test_a_support_clip_is_not_judged_in_its_own_draw() -> None:
    embedding, category, _ = clouds()
    found = list(
        episodes(embedding, category, at_random(36), shots=2, draws=3, seed=0, distance=partial(match, temperature=1))
    )
    assert [e.category for e in found] == ["kick"] * 3 + ["run"] * 3 + ["sit"] * 3
    for e in found:
        assert sorted([*e.support, *e.judged]) == list(range(36))
        assert (e.anomalous == (category[e.judged] != e.category)).all() and e.anomalous.sum() == 24


def test_seen_and_unseen_categories_have_means_of_their_own() -> None:
    embedding, category, subject = clouds()
    label = np.unique(category, return_inverse=True)[1]
    protocol = leave_out(by_subject(subject), label, 1)  # of kick, run, sit: run
    found = few_shot(embedding, category, subject, draws=5, protocol=protocol)
    c = found.categories
    assert found.parts["unseen"].mean == pytest.approx(c["run"], abs=1e-5) and found.parts["unseen"].categories == 1
    assert found.parts["seen"].mean == pytest.approx((c["kick"] + c["sit"]) / 2, abs=1e-5)
    assert found.parts["seen"].low <= found.parts["seen"].mean <= found.parts["seen"].high
    assert found.mean == pytest.approx(np.mean(list(c.values())), abs=1e-5)


def methods(embedding: np.ndarray) -> list[Method]:
    near = partial(match, temperature=0.05)
    return [Method("model", embedding, near), Method("floor: raw DCT", unit(embedding[:, :2]), near)]


def test_too_few_clips_for_k_leave_a_category_out_with_the_reason() -> None:
    embedding, category, subject = clouds()
    keep = ~((category == "sit") & np.isin(subject, ["1"]))  # three support clips of sit are left
    embedding, category, subject = embedding[keep], category[keep], subject[keep]
    found = evaluate(methods(embedding), category, subject, by_subject(subject), shots=[1, 3, 5, 9], draws=3, seed=0)
    assert list(found.results) == [1, 3, 5] and found.main == 3
    five = found.results[5]["model"]
    assert set(five.categories) == {"kick", "run"} and five.mean == pytest.approx(
        np.mean(list(five.categories.values())), abs=1e-5
    )
    assert five.left_out == {"sit": "it has 3 clips to draw a support of 5 from"}
    assert "largest has 6" in found.impossible[9]
    with pytest.raises(ClipError, match=r"'sit'.*3 clips"):
        few_shot(embedding, category, subject, shots=5)
    for shots in ([9], [8, 9]):
        with pytest.raises(ClipError, match="measured"):
            evaluate(methods(embedding), category, subject, by_subject(subject), shots=shots, draws=3, seed=0)
    # Each figure is what few_shot alone gives, and the file holds them all.
    assert found.results[3]["model"] == few_shot(embedding, category, subject, draws=3)
    out = as_json(found)
    assert out["mean"] == found.results[3]["model"].mean and out["floor"]["shots"] == 3  # type: ignore[index]
    assert [(r["method"], r["shots"]) for r in out["runs"]] == [  # type: ignore[union-attr]
        (m, k) for k in (1, 3, 5) for m in ("model", "floor: raw DCT")
    ]


def test_roc_curves_are_sklearns() -> None:
    embedding, category, subject = clouds()
    # All six clips are support, so there is only one possible draw, and its curve is known.
    found = list(
        episodes(
            embedding,
            category,
            by_subject(subject),
            shots=6,
            draws=2,
            seed=0,
            distance=partial(match, temperature=0.05),
        )
    )
    curves = roc_curves(found)
    for e in found[::2]:
        false, true, _ = roc_curve(e.anomalous, e.distance)
        curve = curves[e.category]
        # At any rate, the highest detection of a limit that does not flag more than that.
        for at in (0.0, 0.2, 0.5, 1.0):
            assert curve[round(at * 400)] == pytest.approx(true[false <= at + 1e-9].max())
        assert auc(GRID, curve) == pytest.approx(roc_auc_score(e.anomalous, e.distance), abs=0.005)
    # Averaged over draws: half way between two curves.
    a, b = (Episode("x", np.arange(1), np.arange(4), np.array([0, 0, 1, 1], bool), np.array(d)) for d in
            ([0.0, 0.1, 0.2, 0.3], [0.2, 0.3, 0.0, 0.1]))  # fmt: skip
    assert roc_curves([a, b])["x"][200] == 0.5


def test_confusions_name_the_pair_that_lies_together() -> None:
    rng = np.random.default_rng(0)
    axis = {"kick": [1, 0, 0], "punch": [0.9, 0.436, 0], "sit": [0, 0, 1]}
    category = np.repeat(list(axis), 8)
    subject = np.tile(np.repeat(["1", "2"], 4), 3)
    embedding = unit(np.array([axis[c] for c in category]) + 0.25 * rng.standard_normal((24, 3)))
    near = partial(match, temperature=0.05)
    found = list(episodes(embedding, category, by_subject(subject), shots=3, draws=4, seed=0, distance=near))
    worst = confusions(embedding, category, found, near)
    first = worst[0]
    assert {first.normal, first.other} == {"kick", "punch"} and len(worst) <= 3
    assert len({frozenset((c.normal, c.other)) for c in worst}) == len(worst)
    assert [c.auroc for c in worst] == sorted(c.auroc for c in worst) and 0 < first.auroc < 1
    values = []
    for e in found:
        if e.category == first.normal:
            either = np.isin(category[e.judged], [first.normal, first.other])
            values.append(roc_auc_score(e.anomalous[either], e.distance[either]))
    assert first.auroc == pytest.approx(np.mean(values))
    # The clip is a judged one of the other category, the one it is like a support clip of the normal one.
    assert category[first.clip] == first.other and subject[first.clip] == "2"
    assert category[first.like] == first.normal and subject[first.like] == "1"
    apart = unit(np.eye(3)[np.repeat([0, 1, 2], 8)])
    found = list(episodes(apart, category, by_subject(subject), shots=3, draws=2, seed=0, distance=near))
    assert confusions(apart, category, found, near) == []
