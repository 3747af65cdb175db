"""What is exported computes what was trained, with less."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from builder.slim import Slim, Unit, slim
from tests.trainer.made import ENCODER, windows
from trainer.encoder import Encoder, Graph, Norm
from trainer.head import condense

MOTIONS = ("walk", "squat", "wave", "clap", "jog", "lift_box")


@torch.no_grad()
def trained() -> Encoder:
    """An encoder whose norms have seen something, and whose maps are fitted."""
    torch.manual_seed(3)
    encoder = Encoder(ENCODER)
    for m in encoder.modules():
        if isinstance(m, nn.BatchNorm1d):
            m.weight.uniform_(0.5, 2)
            m.bias.normal_()
    encoder.train()(*windows(*MOTIONS, frames=16))
    encoder.eval()
    condense(encoder, [windows(*MOTIONS, frames=16)])
    return encoder


@torch.no_grad()
def test_it_computes_the_same_without_norms_and_shares_nothing() -> None:
    encoder = trained()
    before = copy.deepcopy(encoder.state_dict())
    joints, visible = windows(*MOTIONS, frames=16, seed=4)
    small = Slim(encoder)
    torch.testing.assert_close(small(joints, visible), encoder(joints, visible), atol=2e-6, rtol=0)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in small.modules())
    for name, value in encoder.state_dict().items():  # the first is as it was
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
    assert not small.training
    was = small(joints, visible)
    for value in (*encoder.parameters(), *encoder.buffers()):
        value.fill_(0.5)
    torch.testing.assert_close(small(joints, visible), was, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("coefficients", "width"), [(1, 16), (3, 8), (6, 40)])
def test_any_size_comes_out_the_same(coefficients: int, width: int) -> None:
    """Fewer coefficients than the slow pose has, fewer features than a joint is narrowed to, and more."""
    torch.manual_seed(1)
    config = replace(ENCODER, coefficients=coefficients, width=width, blocks=2, embedding=48)
    encoder = Encoder(config).eval()
    joints, visible = windows(*MOTIONS, frames=16, seed=6)
    torch.testing.assert_close(Slim(encoder)(joints, visible), encoder(joints, visible), atol=2e-6, rtol=0)


@torch.no_grad()
def test_no_window_and_no_weight_changes_its_place_unseen() -> None:
    """Each window by itself, and every part of the embedding, of somebody who is half hidden and of nobody."""
    encoder = trained()
    joints, visible = windows(*MOTIONS, frames=16, seed=5)
    visible[1, :, ::2], visible[2] = 0, 0
    small, whole = Slim(encoder), encoder(joints, visible)
    alone = torch.cat([small(joints[i : i + 1], visible[i : i + 1]) for i in range(len(MOTIONS))])
    torch.testing.assert_close(alone, whole, atol=2e-6, rtol=0)
    assert float((whole[:1] - whole[3:]).abs().max()) > 0.01


@torch.no_grad()
def test_the_graph_around_it_matches_as_before() -> None:
    encoder = trained()
    graph = Graph(encoder).eval()
    given = *windows(*MOTIONS, frames=16), nn.functional.normalize(torch.randn(3, 4, ENCODER.embedding), dim=-1)
    small, mask = slim(graph), torch.ones(3, 4)
    for a, b in zip(small(*given, mask), graph(*given, mask), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=0)
    assert isinstance(small.encoder, Slim) and graph.encoder is encoder and not small.training


@torch.no_grad()
def test_every_part_has_unit_length_before_it_is_weighed() -> None:
    weights = torch.tensor([0.6, 0.7, 0.2])
    z = torch.randn(5, 9) * 100
    found = Unit([4, 3, 2], weights)(z)
    parts = [nn.functional.normalize(p, dim=1) * w for p, w in zip(z.split([4, 3, 2], 1), weights, strict=True)]
    torch.testing.assert_close(found, nn.functional.normalize(torch.cat(parts, 1), dim=1))
    z[:, 4:7] = 0  # which has no direction
    assert Unit([4, 3, 2], weights)(z)[:, 4:7].abs().max() == 0


@torch.no_grad()
def test_a_variance_that_float32_nearly_loses_is_divided_by_in_float64() -> None:
    encoder = trained()
    norm = encoder.scale_in.norm
    assert isinstance(encoder.scale_in, Norm) and norm.running_var is not None and norm.running_mean is not None
    norm.eps = 1e-12
    norm.running_var[0], norm.running_mean[0], norm.weight[0], norm.bias[0] = 1e-9, 3.0, 1e-3, 5.0
    part = Slim(encoder).scale_in
    _, joints, features = part.scale.shape
    x = 3 + 1e-4 * torch.randn(20, joints, features, dtype=torch.float64)
    expected = (x[:, 0, 0] - 3) / (1e-9 + 1e-12) ** 0.5 * 1e-3 + 5
    torch.testing.assert_close(part.double()(x)[:, 0, 0], expected, atol=1e-5, rtol=1e-5)
