"""The contrastive loss compared with its formula, written as two loops, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from trainer.losses import supervised_contrastive


def plain(z: Tensor, label: list[int], tau: float, group: list[int] | None = None) -> float:
    """Khosla et al., eq. 2: mean over anchors of −1/|P| Σ_p log(exp(z·z_p/τ) / Σ_a exp(z·z_a/τ))."""
    n = len(label)
    terms = []
    for i in range(n):
        others = [j for j in range(n) if j != i and (group is None or group[j] == group[i])]
        positives = [j for j in others if label[j] == label[i]]
        if not positives:
            continue
        sim = {j: sum(float(a) * float(b) for a, b in zip(z[i], z[j], strict=True)) / tau for j in others}
        total = sum(math.exp(s) for s in sim.values())
        terms.append(sum(-math.log(math.exp(sim[p]) / total) for p in positives) / len(positives))
    return sum(terms) / len(terms) if terms else 0.0


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=2, max_size=9),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.booleans(),
)
def test_it_is_the_formula(seed: int, kinds: list[tuple[int, int]], tau: float, grouped: bool) -> None:
    z = normalize(torch.randn(len(kinds), 5, generator=torch.Generator().manual_seed(seed)), dim=-1)
    label = [4 * g * grouped + c for c, g in kinds]
    group = [g for _, g in kinds] if grouped else None
    found = supervised_contrastive(z, torch.tensor(label), tau, None if group is None else torch.tensor(group))
    assert float(found) == pytest.approx(plain(z, label, tau, group), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("n", [2, 5, 33])
def test_identical_embeddings_cost_the_log_of_the_others(n: int) -> None:
    z = normalize(torch.ones(n, 4), dim=-1)
    for label in (torch.zeros(n, dtype=torch.long), torch.tensor([0, 0, *range(1, n - 1)])):
        assert float(supervised_contrastive(z, label, 0.1)) == pytest.approx(math.log(n - 1), abs=1e-4)


@pytest.mark.parametrize(("n", "tau"), [(2, 0.1), (4, 0.5), (4, 1.0)])
def test_separated_classes_reach_the_closed_form(n: int, tau: float) -> None:
    # Two orthogonal classes of n: −log(e^{1/τ} / ((n − 1)·e^{1/τ} + n)).
    z = torch.eye(2).repeat_interleave(n, 0)
    expected = math.log(n - 1 + n * math.exp(-1 / tau))
    found = supervised_contrastive(z, torch.arange(2).repeat_interleave(n), tau)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_negatives_of_another_group_are_left_out() -> None:
    rng = torch.Generator().manual_seed(0)
    z = normalize(torch.randn(10, 4, generator=rng), dim=-1)
    label, group = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3]), torch.tensor([0] * 6 + [1] * 4)
    together = float(supervised_contrastive(z, label, 0.2, group))
    apart = [float(supervised_contrastive(z[group == g], label[group == g], 0.2)) for g in (0, 1)]
    assert together == pytest.approx((6 * apart[0] + 4 * apart[1]) / 10, rel=1e-5)
    assert together < float(supervised_contrastive(z, label, 0.2)) - 0.1


def test_without_positives_it_is_zero_and_still_differentiable() -> None:
    z = normalize(torch.randn(4, 3), dim=-1).requires_grad_()
    loss = supervised_contrastive(z, torch.arange(4), 0.1)
    loss.backward()
    assert loss.item() == 0 and z.grad is not None and z.grad.eq(0).all()


def test_a_lone_sample_of_a_group_does_not_spoil_the_gradient() -> None:
    z = normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), dim=-1).requires_grad_()
    loss = supervised_contrastive(z, torch.tensor([0, 0, 1, 1, 2]), 0.1, torch.tensor([0, 0, 0, 0, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(plain(z.detach()[:4], [0, 0, 1, 1], 0.1), rel=1e-4)
    assert z.grad is not None and z.grad.isfinite().all() and z.grad[:4].abs().sum() > 0
