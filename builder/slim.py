"""What a trained encoder becomes before it is exported: the same function, as engines are fastest at it.

    joints, visible ─► normalise ─► dct ─► (15, B, F) ─► scale_in ─► enter, blocks ─┬► narrow ─┬─► leave ──────┐
                                     │                                              │          └─┬► leave_head ┼► unit
                                     │                                              └─ mean ─────┘             │
                                     └───────────────────────── slow ──────────────────────► leave_slow ───────┘

- Joints first, then windows: a graph convolution is two large products, whatever the batch. With windows first the one
  over the joints is a small product for each window.
- Batch normalisation and the convolution's own bias become one scale and one shift.
- Maps that follow each other, or read the same, become one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edge.skeleton import J
from trainer.encoder import NARROW, Encoder, Graph, GraphConv, Norm


class Product(nn.Module):
    """x (…, F) · weight (F, G)."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float().clone(memory_format=torch.contiguous_format))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight)


class Scaled(nn.Module):
    """x · scale + shift on (15, B, F), with both for every joint and feature."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        # As many axes as x has: TensorRT 8 makes them so by a layer without a name, which no list of islands reaches.
        self.register_buffer("scale", scale.float()[:, None].contiguous())
        self.register_buffer("shift", shift.float()[:, None].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Conv(nn.Module):
    """A graph convolution and the normalisation behind it: (15, B, F) → (15, B, G)."""

    mix: Tensor

    def __init__(self, conv: GraphConv, norm: Norm) -> None:
        super().__init__()
        self.linear = Product(conv.linear.weight.T)
        self.register_buffer("mix", conv.mix.detach().clone())
        self.norm = Scaled(*_affine(norm, conv))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        mixed = torch.matmul(self.mix, y.reshape(J, -1)).reshape(J, -1, self.linear.weight.shape[1])
        z: Tensor = self.norm(mixed)
        return z


class Block(nn.Module):
    """Two graph convolutions with a residual path."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        a, norm_a, _, _, b, norm_b = body
        self.first, self.second = Conv(a, norm_a), Conv(b, norm_b)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Unit(nn.Module):
    """Parts side by side (B, D) → each of unit length times its weight, and the whole of unit length."""

    within: Tensor
    weight: Tensor

    def __init__(self, sizes: list[int], weights: Tensor) -> None:
        super().__init__()
        # z² times this is, at every place, the squared length of the part that the place is in.
        part = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        self.register_buffer("within", (part[:, None] == part).float())
        self.register_buffer("weight", weights[part][None])

    def forward(self, z: Tensor) -> Tensor:
        z = z / torch.sqrt(torch.matmul(z * z, self.within) + 1e-12) * self.weight
        return z / torch.sqrt((z * z).sum(-1, keepdim=True) + 1e-12)


class Slim(nn.Module):
    """joints (B, T, 15, 3), visible (B, T, 15) → embedding (B, D): what `encoder` gives in evaluation mode."""

    ones: Tensor
    bias: Tensor

    @torch.no_grad()
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config = encoder.config
        coefficients = self.config.coefficients
        # x's coefficients, then y's, then z's: as they come out of the product, and not as they were trained.
        order = torch.arange(3 * coefficients).reshape(coefficients, 3).T.reshape(-1)
        all_of = torch.cat([order, torch.tensor([3 * coefficients])])
        self.normalise = copy.deepcopy(encoder.normalise)
        self.dct = Product(encoder.dct.T)
        scale, shift = _affine(encoder.scale_in)
        self.scale_in = Scaled(scale[:, all_of], shift[:, all_of])
        enter, norm, _ = encoder.enter
        assert isinstance(enter, GraphConv) and isinstance(norm, Norm)
        self.enter = Conv(enter, norm)
        self.enter.linear = Product(enter.linear.weight.T[all_of])
        self.blocks = nn.ModuleList(Block(b.body) for b in encoder.blocks)  # type: ignore[arg-type]

        head, last = encoder.head, encoder.leave_head.weight.double()
        behind = last @ head.leave.weight.double()
        self.features = encoder.narrow.out_features
        self.narrow = Product(torch.cat([encoder.narrow.weight, head.narrow.weight]).T)
        self.register_buffer("bias", head.narrow.bias[None, None].detach().clone())
        self.register_buffer("ones", torch.full((1, J), 1 / J))
        self.leave = Product(encoder.leave.weight.T)
        self.leave_head = nn.Linear(behind.shape[1], behind.shape[0])
        self.leave_head.weight.copy_(behind)
        self.leave_head.bias.copy_(last @ head.leave.bias.double())
        slow = encoder.leave_slow.weight
        self.slowest = encoder.leave_slow.in_features // (3 * J)
        self.leave_slow = Product(slow.reshape(-1, J, self.slowest, 3).transpose(2, 3).reshape(len(slow), -1).T)
        sizes = [self.leave.weight.shape[1], len(behind), len(slow)]
        self.unit = Unit(sizes, torch.sqrt(encoder.share))
        self.eval()

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        x, seen = self.normalise(joints, visible)
        rows = self.dct(x)
        spectrum = torch.cat([rows.reshape(-1, J, 3 * self.config.coefficients), seen.reshape(-1, J, 1)], -1)
        h = torch.relu(self.enter(self.scale_in(spectrum.transpose(0, 1))))
        for block in self.blocks:
            h = block(h)
        narrow = self.narrow(h).transpose(0, 1)
        features = narrow[..., : self.features].reshape(-1, J * self.features)
        looked = torch.relu(narrow[..., self.features :] + self.bias).reshape(-1, J * NARROW)
        mean = torch.matmul(self.ones, h.reshape(J, -1)).reshape(-1, self.narrow.weight.shape[0])
        parts = (
            self.leave(features),
            self.leave_head(torch.cat([looked, mean], -1)),
            self.leave_slow(rows[..., : self.slowest].reshape(-1, 3 * J * self.slowest)),
        )
        z: Tensor = self.unit(torch.cat(parts, -1))
        return z


def slim(graph: Graph) -> Graph:
    """The same graph around such an encoder, in evaluation mode. The one given stays as it is."""
    out = Graph(graph.encoder)
    out.add_module("encoder", Slim(graph.encoder))
    return out.eval()


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
