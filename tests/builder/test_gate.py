"""The accuracy gate: its figures are right, a good graph passes, a bad one is told which part to keep."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from sklearn.metrics import roc_auc_score

from builder import gate
from builder.examples import Examples, example_windows, gate_examples
from builder.export import export, load_graph
from builder.gate import Output, Verdict, accept, compare, few_shot_auroc, judge, outputs, what_to_keep
from builder.half import ISLANDS, to_half
from edge.bundle import Bundle
from edge.errors import BundleError
from edge.motion import MOTIONS
from edge.score import match
from tests.trainer.made import ENCODER


@pytest.fixture(scope="module")
def data(trained: Bundle) -> bytes:
    return export(load_graph(trained))


@pytest.fixture(scope="module")
def examples() -> Examples:
    """A fifth of what a build is judged on, the support windows whole."""
    full = gate_examples(ENCODER.frames, ENCODER.seconds)
    kept = full.support | (np.arange(len(full.support)) % 5 == 0)
    return Examples(*(x[kept] for x in (full.joints, full.visible, full.category, full.support)))


def overflowing(trained: Bundle) -> bytes:
    """The same function as the trained graph's, but between two of its parts are numbers beyond float16."""
    graph = load_graph(trained)
    with torch.no_grad():
        scale = 6e4 / graph.encoder.narrow.weight.abs().max()
        graph.encoder.narrow.weight *= scale
        graph.encoder.leave.weight /= scale
    return export(graph)


def test_the_examples_cover_every_motion_hidden_joints_and_millimetres() -> None:
    e = gate_examples(16, 1.0)
    n = len(e.joints)
    assert e.joints.shape == (n, 16, 15, 3) and e.visible.shape == (n, 16, 15) and e.categories == len(MOTIONS)
    third = np.arange(n) * 3 // n
    np.testing.assert_array_equal(e.support, third == 0)
    assert len(set(np.bincount(e.category[e.support]))) == 1
    assert e.visible[third != 1].min() == 1 and 0.08 < 1 - e.visible[third == 1].mean() < 0.12
    size = [np.ptp(e.joints[third == i][..., 1]) for i in (0, 2)]
    assert 800 < size[1] / size[0] < 1200 and np.abs(e.joints[third == 2]).max() > 30_000
    np.testing.assert_array_equal(e.joints, gate_examples(16, 1.0).joints)
    np.testing.assert_array_equal(e.joints[e.support], example_windows(16, 1.0)[0][: e.support.sum()])


def test_the_islands_pass_on_a_trained_graph(data: bytes, examples: Examples) -> None:
    typed, verdict = accept(data, examples)
    assert typed == to_half(data)
    assert verdict.failures == [] and verdict.windows == len(examples.joints) and 0 < verdict.strain < 1
    assert 0.999 <= verdict.cosine < 1 and 0 < verdict.distance <= 2e-3 and 0 <= verdict.auroc <= 2e-3
    # As it runs here it is at most as far off.
    exact = outputs(data, examples)
    assert compare(exact, outputs(typed, examples), examples).strain <= verdict.strain
    assert compare(exact, exact, examples).strain < 1e-3


def test_outputs_are_the_graph_s_against_its_own_support(data: bytes, examples: Examples) -> None:
    found = outputs(data, examples)
    assert found.distance.shape == (len(examples.joints), examples.categories)
    for g in (0, 3):
        support = found.embedding[examples.support & (examples.category == g)]
        np.testing.assert_allclose(
            found.distance[:, g], match(found.embedding, support, ENCODER.temperature), atol=1e-4
        )


def test_auroc_is_that_of_scikit_learn_without_the_support() -> None:
    rng = np.random.default_rng(0)
    category = np.tile(np.arange(3), 20)
    support = np.arange(60) < 15
    distance = np.round(rng.random((60, 3)), 1).astype(np.float32)  # ties
    distance[support] = np.nan  # not looked at
    e = Examples(np.zeros((60, 8, 15, 3), np.float32), np.ones((60, 8, 15), np.float32), category, support)
    expected = [roc_auc_score(category[15:] != g, distance[15:, g]) for g in range(3)]
    assert few_shot_auroc(distance, e) == pytest.approx(np.mean(expected), abs=1e-12)
    distance[20, 1] = np.nan
    assert np.isnan(few_shot_auroc(distance, e))


def test_the_verdict_holds_the_worst_window_and_distance() -> None:
    e = Examples(
        np.zeros((4, 8, 15, 3), np.float32), np.ones((4, 8, 15), np.float32), np.array([0, 1, 0, 1]),
        np.array([True, True, False, False]),
    )  # fmt: skip
    angle = np.array([0, 0, 0.1, 0.02])
    exact = Output(np.tile(np.array([1, 0], np.float32), (4, 1)), np.array([[0, 1], [1, 0], [0.2, 0.8], [0.9, 0.3]]))
    turned = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32) * 1.01  # a length is not a direction
    found = compare(exact, Output(turned, exact.distance + np.array([0, -0.003])), e)
    assert found.cosine == pytest.approx(np.cos(0.1), abs=1e-6) and found.distance == pytest.approx(0.003)
    assert found.auroc == 0 and found.auroc_float32 == 1 and found.windows == 4
    assert len(found.failures) == 2 and "0.99500" in found.failures[0] and "0.003" in found.failures[1]
    swapped = compare(exact, Output(exact.embedding, exact.distance[:, ::-1]), e)
    assert swapped.auroc == 1 and "AUROC differs by 1.0000" in swapped.failures[-1]


@pytest.mark.parametrize(
    ("cosine", "distance", "auroc", "broken"),
    [
        (0.999, 2e-3, 2e-3, 0),
        (0.9989, 0, 0, 1),
        (1, 2.1e-3, 0, 1),
        (1, 0, 2.1e-3, 1),
        (0.9, 1, 1, 3),
        (float("nan"), 0, 0, 1),
        (1, float("nan"), float("nan"), 1),
        (1, float("inf"), 0, 1),
    ],
)
def test_limits(cosine: float, distance: float, auroc: float, broken: int) -> None:
    verdict = Verdict(cosine, distance, auroc, 0.9, 10)
    assert len(verdict.failures) == broken
    assert (verdict.strain > 1.0001) == bool(broken)


def test_a_normalisation_left_in_float16_fails_and_is_named(data: bytes, examples: Examples) -> None:
    bad = [p for p in ISLANDS if p != "/encoder/normalise/"]
    with pytest.raises(BundleError, match="float16 overflows") as e:
        accept(data, examples, bad)
    assert e.value.fix == "keep these parts in float32: build with --float32 /encoder/normalise/"
    accept(data, examples, [*bad, "/encoder/normalise/"])


def test_overflow_between_two_layers_names_both_and_neither_is_enough(trained: Bundle, examples: Examples) -> None:
    data = overflowing(trained)
    run = {name: outputs(d, examples).embedding for name, d in (("same", export(load_graph(trained))), ("large", data))}
    np.testing.assert_allclose(run["large"], run["same"], atol=1e-4)
    with pytest.raises(BundleError, match="float16 overflows") as e:
        accept(data, examples)
    both = ["/encoder/narrow/", "/encoder/leave/"]
    assert e.value.fix == "keep these parts in float32: build with " + " ".join(f"--float32 {p}" for p in both)
    accept(data, examples, [*ISLANDS, *both])
    for p in both:
        with pytest.raises(BundleError):
            accept(data, examples, [*ISLANDS, p])


def test_of_several_parts_that_would_do_the_best_is_named(
    data: bytes, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = outputs(data, examples)
    strain = judge(exact, to_half(data), examples).strain
    monkeypatch.setattr(gate, "DISTANCE", gate.DISTANCE * strain * 0.99)
    monkeypatch.setattr(gate, "COSINE", 1 - (1 - gate.COSINE) * strain * 0.99)
    (keep,) = what_to_keep(data, ISLANDS, exact, examples)
    better = judge(exact, to_half(data, [*ISLANDS, keep]), examples)
    assert not better.failures
    for other in ("/encoder/leave/", "/encoder/blocks.0/", "/encoder/scale_in/"):
        assert better.strain <= judge(exact, to_half(data, [*ISLANDS, other]), examples).strain


def test_the_gate_does_not_believe_casts_that_the_runtime_takes_out(data: bytes, examples: Examples) -> None:
    """The unit length in float16 looks exact when it is run here, and is not."""
    only = [n.name for n in onnx.load_from_string(data).graph.node if not n.name.startswith("/encoder/unit/Div")]
    typed, exact = to_half(data, only), outputs(data, examples)
    as_run = compare(exact, outputs(typed, examples), examples)
    verdict = judge(exact, typed, examples)
    assert verdict.distance > 5e-5 and verdict.distance > 5 * as_run.distance
    assert ort.InferenceSession(typed, providers=["CPUExecutionProvider"])
