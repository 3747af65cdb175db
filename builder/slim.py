"""What a trained encoder becomes before it is exported: the same function, with fewer weights and fewer operations.

- the head's last two linear maps, as one;
- a graph convolution and the batch normalisation behind it, as products with one scale and one shift.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.encoder import Encoder, GraphConv, Norm


class Scaled(nn.Module):
    """x · scale + shift on (B, 15, F), with both for every joint and feature."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        # As many axes as x has: TensorRT 8 makes them so by a layer without a name, which no list of islands reaches.
        self.register_buffer("scale", scale.float()[None])
        self.register_buffer("shift", shift.float()[None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


@torch.no_grad()
def slim(encoder: Encoder) -> Encoder:
    """A copy in evaluation mode that computes what `encoder` does, with the parts above merged."""
    out = copy.deepcopy(encoder).eval()
    first, second = encoder.head.leave, encoder.leave_head
    both = nn.Linear(first.in_features, second.out_features)
    both.weight.copy_(second.weight @ first.weight)
    both.bias.copy_(second.weight @ first.bias)
    out.head.leave = both
    out.add_module("leave_head", nn.Identity())
    out.add_module("scale_in", Scaled(*_affine(out.scale_in)))
    for parts in (m for m in list(out.modules()) if isinstance(m, nn.Sequential)):
        for i, (conv, norm) in enumerate(pairwise(list(parts))):
            if isinstance(conv, GraphConv) and isinstance(norm, Norm):
                parts[i + 1] = Scaled(*_affine(norm, conv))
                conv.linear.register_parameter("bias", None)
    return out


def _affine(norm: Norm, conv: GraphConv | None = None) -> tuple[Tensor, Tensor]:
    """scale, shift (15, F) in float64: y = (x − mean) · weight / √(variance + ε) + bias.

    What the convolution adds before it comes into the shift: A·(X·W + 1·bᵀ) = A·X·W + (A·1)·bᵀ.
    """
    n = norm.norm
    assert n.running_mean is not None and n.running_var is not None
    weight, bias, mean, variance = (
        t.double().reshape(norm.shape) for t in (n.weight, n.bias, n.running_mean, n.running_var)
    )
    scale = weight / torch.sqrt(variance + n.eps)
    if conv is not None:
        mean = mean - conv.mix.double().sum(1, keepdim=True) * conv.linear.bias.double()
    return scale, bias - mean * scale
