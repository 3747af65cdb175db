"""Few-shot evaluation, against a loop of its own and on cases with one right answer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge.errors import ClipError
from edge.score import match
from trainer.evaluate import few_shot


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
    # Six shots are all the clips that subjects 1 and 3 have of a category: every draw is the same one.
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
    # …and perfectly wrong when the test subjects' clips lie opposite to the support's.
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
    # Four orthogonal clips of `a`, and clips of `b` amid them: b is nearer to any three of a than the fourth is.
    a = np.eye(5)[:4]
    b = np.tile(np.array([[0.5, 0.5, 0.5, 0.5, 0.0]]), (4, 1))
    found = few_shot(unit(np.vstack([a, b])), np.repeat(["a", "b"], 4), np.repeat("1", 8), split="random", draws=5)
    assert found.categories["a"] == 0  # 0.75 or so if the three at distance 0 were counted
    assert found.categories["b"] == 1


def test_what_cannot_be_evaluated_is_said_and_how_to() -> None:
    embedding, category, subject = clouds()
    with pytest.raises(ClipError, match=r"'kick' has 6 clips.*support of 7.*--split random"):
        few_shot(embedding, category, subject, shots=7)
    with pytest.raises(ClipError, match="two categories"):
        few_shot(embedding[:12], category[:12], subject[:12])
    with pytest.raises(ClipError, match=r"two subjects.*--split random"):
        few_shot(embedding, category, np.repeat("1", 36))
    with pytest.raises(ClipError, match=r"'kick' has no clips of the test subjects"):
        few_shot(embedding, category, np.where(category == "kick", "1", subject))
    with pytest.raises(ClipError, match=r"has 12 clips|no clips"):
        few_shot(embedding, category, subject, shots=13, split="random")
