"""What is exported computes what was trained, with less."""

from __future__ import annotations

import copy

import torch
from torch import nn

from builder.slim import Scaled, slim
from tests.trainer.made import ENCODER, windows
from trainer.encoder import Encoder, GraphConv, Norm
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
def test_it_computes_the_same_with_fewer_weights_and_no_norms() -> None:
    encoder = trained()
    before = copy.deepcopy(encoder.state_dict())
    joints, visible = windows(*MOTIONS, frames=16, seed=4)
    small = slim(encoder)
    torch.testing.assert_close(small(joints, visible), encoder(joints, visible), atol=2e-6, rtol=0)
    count = [sum(p.numel() for p in e.parameters()) for e in (small, encoder)]
    assert count[0] < count[1] and not any(isinstance(m, nn.BatchNorm1d) for m in small.modules())
    assert all(m.linear.bias is None for m in small.modules() if isinstance(m, GraphConv))
    for name, value in encoder.state_dict().items():  # the first is as it was
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
    assert not small.training


@torch.no_grad()
def test_a_variance_that_float32_nearly_loses_is_divided_by_in_float64() -> None:
    encoder = trained()
    norm = encoder.scale_in.norm
    assert isinstance(encoder.scale_in, Norm) and norm.running_var is not None and norm.running_mean is not None
    norm.eps = 1e-12
    norm.running_var[0], norm.running_mean[0], norm.weight[0], norm.bias[0] = 1e-9, 3.0, 1e-3, 5.0
    part = slim(encoder).scale_in
    assert isinstance(part, Scaled)
    x = 3 + 1e-4 * torch.randn(20, *part.scale.shape[1:], dtype=torch.float64)
    expected = (x[:, 0, 0] - 3) / (1e-9 + 1e-12) ** 0.5 * 1e-3 + 5
    torch.testing.assert_close(part.double()(x)[:, 0, 0], expected, atol=1e-5, rtol=1e-5)
