"""Rewrites a trained encoder for export: the same function, in the form that engines compute fastest.

    joints, visible ─► normalise ─► dct ─► turned ─┬► join ─► scale_in ─► enter, blocks ─┬► narrow ┬► leave ─────┐
                                                   │         (B, 15, F)                  │         ├► leave_head ┼► unit
                                                   │                                     └► mean ──┘             │
                                                   └──────────────────────────────────────► leave_slow ──────────┘

- Turning the body and subtracting the pelvis' place are linear, so they act on DCT coefficients and not on frames, of
  which there are more.
- Each product takes the shape that the one before it gave: a reshape between two costs as much as a product. (The
  constants of a convolution can be laid out for several windows at once: builder/together.py.)
- Batch normalisation and the convolution's own bias become one scale and one shift.
- Linear maps that follow each other, or read the same input, become one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edge.skeleton import J
from trainer.encoder import NARROW, Encoder, Graph, GraphConv, Norm, over_frames


class Product(nn.Module):
    """x (…, F) · weight (F, G)."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float().clone(memory_format=torch.contiguous_format))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight)


class Mix(nn.Module):
    """weight (N, 15) · x (B, 15, F): mixes the joints."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.weight, x)


class Scaled(nn.Module):
    """x · scale + shift on (B, 15, F), with a scale and a shift for each joint and feature."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        # Of the same rank as x: else TensorRT 8 reshapes them in a nameless layer, which no list of islands reaches.
        self.register_buffer("scale", scale.float()[None].contiguous())
        self.register_buffer("shift", shift.float()[None].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Frames(Product):
    """Curves x (B, 3, 15, T) · weight (T, C) → (B, 3, 15, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(x, self.weight, 3)


class Join(nn.Module):
    """Coefficients (B, 3, 15, C), and in how many frames a joint was seen (B, 1, 15, 1) → (B, 15, 3·C + 1).

    The coefficients of x come first, then those of y and z, then the number of frames.
    """

    def __init__(self, coefficients: int) -> None:
        super().__init__()
        self.size = 3 * coefficients

    def forward(self, rows: Tensor, seen: Tensor) -> Tensor:
        by_joint = rows.transpose(1, 2).reshape(-1, J, self.size)
        return torch.cat([by_joint, seen.reshape(-1, J, 1)], -1)


class Conv(nn.Module):
    """A graph convolution and the normalisation after it: (B, 15, F) → (B, 15, G)."""

    def __init__(self, conv: GraphConv, norm: Norm) -> None:
        super().__init__()
        self.linear = Product(conv.linear.weight.T)
        self.mix = Mix(conv.mix)
        self.norm = Scaled(*_affine(norm, conv))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.norm(self.mix(self.linear(x)))
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
    """Parts side by side (B, D) → each part scaled to unit length times its weight, then the whole to unit length."""

    within: Tensor
    weight: Tensor

    def __init__(self, sizes: list[int], weights: Tensor) -> None:
        super().__init__()
        # z² · within holds, at every position, the squared length of the part that the position belongs to.
        part = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        self.register_buffer("within", (part[:, None] == part).float())
        self.register_buffer("weight", weights[part][None])

    def forward(self, z: Tensor) -> Tensor:
        z = z / torch.sqrt(torch.matmul(z * z, self.within) + 1e-12) * self.weight
        return z / torch.sqrt((z * z).sum(-1, keepdim=True) + 1e-12)


class Slim(nn.Module):
    """joints (B, T, 15, 3), visible (B, T, 15) → embedding (B, D), as `encoder` computes it in evaluation mode."""

    bias: Tensor
    one: Tensor

    @torch.no_grad()
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config = encoder.config
        coefficients = self.config.coefficients
        self.normalise = copy.deepcopy(encoder.normalise.sized)
        # Padded with zeros, so that the number of features that the convolutions read is a multiple of 8.
        wide = coefficients + next(k for k in range(8) if (3 * (coefficients + k) + 1) % 8 == 0)
        self.dct = Frames(nn.functional.pad(encoder.dct.T, (0, wide - coefficients)))
        self.turned = copy.deepcopy(encoder.normalise.turned)
        self.register_buffer("one", torch.eye(wide)[:1].reshape(1, 1, 1, wide))
        self.join = Join(wide)
        # The DCT product gives x's coefficients, then y's, then z's. The encoder was trained with them interleaved.
        trained = torch.arange(3 * coefficients).reshape(coefficients, 3).T
        places = torch.arange(3 * wide).reshape(3, wide)[:, :coefficients]

        def placed(features: Tensor) -> Tensor:
            out = features.new_zeros(len(features), 3 * wide + 1)
            out[:, places.reshape(-1)] = features[:, trained.reshape(-1)]
            out[:, -1] = features[:, -1]
            return out

        scale, shift = _affine(encoder.scale_in)
        scale[:, -1] /= self.config.frames  # the input is the number of frames with the joint, trained on their share
        self.scale_in = Scaled(placed(scale), placed(shift))
        enter, norm, _ = encoder.enter
        assert isinstance(enter, GraphConv) and isinstance(norm, Norm)
        self.enter = Conv(enter, norm)
        self.enter.linear = Product(placed(enter.linear.weight).T)
        self.blocks = nn.ModuleList(Block(b.body) for b in encoder.blocks)  # type: ignore[arg-type]

        head, last = encoder.head, encoder.leave_head.weight.double()
        behind = last @ head.leave.weight.double()
        self.features = encoder.narrow.out_features
        self.narrow = Product(torch.cat([encoder.narrow.weight, head.narrow.weight]).T)
        self.register_buffer("bias", head.narrow.bias[None, None].detach().clone())
        self.mean = Mix(torch.full((1, J), 1 / J))
        self.leave = Product(encoder.leave.weight.T)
        self.leave_head = nn.Linear(behind.shape[1], behind.shape[0])
        self.leave_head.weight.copy_(behind)
        self.leave_head.bias.copy_(last @ head.leave.bias.double())
        slow = encoder.leave_slow.weight
        self.slowest = encoder.leave_slow.in_features // (3 * J)
        self.leave_slow = Product(slow.reshape(-1, J, self.slowest, 3).permute(0, 3, 1, 2).reshape(len(slow), -1).T)
        sizes = [self.leave.weight.shape[1], len(behind), len(slow)]
        self.unit = Unit(sizes, torch.sqrt(encoder.share))
        self.eval()

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        x, seen, known = self.normalise(joints, visible)
        rows = self.dct(x)
        rows = self.turned(rows, rows[..., :1], known, self.one)  # the first coefficient is the mean
        h = torch.relu(self.enter(self.scale_in(self.join(rows, seen))))
        for block in self.blocks:
            h = block(h)
        narrow = self.narrow(h)
        features = narrow[..., : self.features].reshape(-1, J * self.features)
        looked = torch.relu(narrow[..., self.features :] + self.bias).reshape(-1, J * NARROW)
        mean = self.mean(h).reshape(-1, self.narrow.weight.shape[0])
        parts = (
            self.leave(features),
            self.leave_head(torch.cat([looked, mean], -1)),
            self.leave_slow(rows[..., : self.slowest].reshape(-1, 3 * J * self.slowest)),
        )
        z: Tensor = self.unit(torch.cat(parts, -1))
        return z


def slim(graph: Graph) -> Graph:
    """The same graph with a `Slim` encoder, in evaluation mode. `graph` itself is not changed."""
    out = Graph(graph.encoder)
    out.add_module("encoder", Slim(graph.encoder))
    return out.eval()


def _affine(norm: Norm, conv: GraphConv | None = None) -> tuple[Tensor, Tensor]:
    """scale, shift (15, F) in float64: y = (x − mean) · weight / √(variance + ε) + bias.

    The convolution's bias goes into the shift: A·(X·W + 1·bᵀ) = A·X·W + (A·1)·bᵀ.
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
