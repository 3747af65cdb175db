"""A plan through the gate: with every size of a batch, in parts, and what is said of one that is refused."""

from __future__ import annotations

import numpy as np
import pytest

from builder.compile import (
    differences,
    distances,
    fit_examples,
    gate_error,
    judge_engine,
    latency,
)
from builder.examples import Examples
from builder.gate import Output, Verdict, outputs
from builder.islands import ISLANDS
from builder.profile import parse_profile
from edge.bundle import GRAPH, Bundle
from edge.engine import open_engine
from edge.skeleton import Float
from tests.builder.test_compile import SMALL, Twisted


def test_the_gate_passes_what_says_the_same_and_refuses_what_does_not(built: Bundle, examples: Examples) -> None:
    some = fit_examples(examples, SMALL.shots[2])
    exact = outputs(built.read(GRAPH), some)
    same, twisted = Twisted(built, 0.0), Twisted(built, 0.05)
    verdict, short = judge_engine(same, exact, some, SMALL)  # type: ignore[arg-type]
    assert verdict.failures == [] and verdict.distance < 1e-4 and verdict.cosine > 0.9999
    assert same.widest[0] == SMALL.categories[2] < some.categories  # a few categories at a time
    assert max(differences(exact, short).values()) < 1e-4
    verdict, short = judge_engine(twisted, exact, some, SMALL)  # type: ignore[arg-type]
    assert len(verdict.failures) >= 1 and "distances differ" in " ".join(verdict.failures)
    assert differences(exact, short)["embedding"] == pytest.approx(0.05, abs=1e-4)


def test_distances_in_parts_are_those_of_the_whole(built: Bundle, examples: Examples) -> None:
    some = fit_examples(examples, 4)
    e = open_engine(built, max_batch=32)
    support = np.random.default_rng(0).normal(size=(5, 3, 16)).astype(np.float32)
    support /= np.linalg.norm(support, axis=-1, keepdims=True)
    whole = distances(e, some, support, parse_profile("1:8:32", "1:4:32x1:8:64"))
    for profile in (SMALL, parse_profile("1:8:8", "2:2:2x5:8:64"), parse_profile("1:8:8", "4:4:4x3:3:3")):
        found = distances(e, some, support, profile)
        assert found.shape == whole.shape == (len(some.category), 5)
        np.testing.assert_allclose(found, whole, atol=1e-5)


def test_examples_fit_the_room_there_is_for_a_category(examples: Examples) -> None:
    few = fit_examples(examples, 3)
    assert {int((few.support & (few.category == c)).sum()) for c in range(few.categories)} == {3}
    assert (~few.support).sum() == (~examples.support).sum()
    assert len(fit_examples(examples, 1000).category) == len(examples.category)


def test_latency_has_every_bucket(built: Bundle) -> None:
    found = latency(open_engine(built, max_batch=8), SMALL, runs=3)
    assert list(found) == ["1", "2", "4", "8"] and all(0 < a <= b for a, b in found.values())


BAD = Verdict(cosine=0.9, distance=0.5, auroc=0.1, auroc_float32=0.9, windows=1)


def test_a_refused_plan_names_what_to_keep_as_seen_to_pass(
    built: Bundle, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, exact = built.read(GRAPH), Output(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
    monkeypatch.setattr("builder.keep.sorted_by_cost", lambda *given: ["/a/", "/b/", "/c/"])
    e = gate_error(BAD, True, data, ISLANDS, exact, examples, lambda p: len(p) >= 2)
    assert e.fix == "keep these parts in float32: build with --float32 /a/ --float32 /b/" and "cosine" in e.why
    e = gate_error(BAD, True, data, ISLANDS, exact, examples, lambda p: False)
    assert "whatever is kept" in e.why and e.fix == "use --precision fp32"
    assert "report it" in gate_error(BAD, False, data, [], exact, examples, lambda p: True).fix
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install onnx" in gate_error(BAD, True, data, ISLANDS, exact, examples, lambda p: True).fix


def test_the_gate_judges_every_size_of_a_batch(built: Bundle, examples: Examples) -> None:
    """What a plan computes of few windows need not be computed as that of many is."""
    some = fit_examples(examples, SMALL.shots[2])
    exact, engine = outputs(built.read(GRAPH), some), Twisted(built, 0.0)
    right, sizes = engine.run, set[int]()

    def run(n: int) -> tuple[Float, Float]:
        sizes.add(n)
        embedding, distance = right(n)
        return embedding, distance + (0.5 if n == 2 else 0)

    engine.run = run  # type: ignore[method-assign]
    verdict, short = judge_engine(engine, exact, some, SMALL)  # type: ignore[arg-type]
    assert sizes >= {1, 2, 4, 8}
    assert "distances differ" in " ".join(verdict.failures) and differences(exact, short)["distance"] > 0.4


def test_what_a_plan_is_said_to_differ_by_is_with_the_features_that_run_gives_it(
    built: Bundle, examples: Examples
) -> None:
    some = fit_examples(examples, SMALL.shots[2])
    exact, engine = outputs(built.read(GRAPH), some), Twisted(built, 0.05)
    _, short = judge_engine(engine, exact, some, SMALL)  # type: ignore[arg-type]
    right = open_engine(built, max_batch=8)
    support = exact.embedding[some.support].reshape(some.categories, -1, exact.embedding.shape[1])
    expected = distances(right, some, support, SMALL) + 0.05
    np.testing.assert_allclose(short.distance, expected, atol=1e-4)
