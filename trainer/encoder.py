"""Defines the model as one graph, as it is exported: raw joints in, embedding and distances out.

    joints (B, T, 15, 3) ─┐
    visible (B, T, 15)  ──┴► Normalise ─► DCT ─► graph convolutions ─► condense ─► embedding (B, D), unit length
                                                                          │
    support (G, K, D), support_mask (G, K) ──────────────────────────► Match ─► distance (B, G)

Only operations that mean the same in ONNX opset 17, ONNX Runtime and TensorRT 8.5 to 11 are used: reductions
are sums (older parsers ignore the axes input of ReduceMean), norms are written out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge.skeleton import CORE15, PARENTS, J

EPS = 1e-6
PRIOR = 1e-3
"""The weight, in bones, of the prior assumption that joints come in metres."""
NARROW = 32
"""Features per joint from which the embedding is condensed, and which the head gets."""
HEAD = 128
"""Width of the head's output, which the loss compares."""
SLOW = 4
"""Coefficients of each joint, from the slowest on, that make up the slow pose in the embedding."""
LIMIT = 10.0
"""Coordinates are clamped to this distance from the middle of the window, in metres of the reference body."""
_LEFT = [CORE15.index(n) for n in ("l_shoulder", "l_hip")]
_RIGHT = [CORE15.index(n) for n in ("r_shoulder", "r_hip")]
_PARENT = list(PARENTS[1:])
# Bone lengths of a 1.7 m adult in metres, from Winter's fractions of stature (Biomechanics and Motor Control of
# Human Movement, 4th ed., fig. 4.1), for core15's (joint, parent) pairs from the neck on. They only set the unit.
_BONES = (0.49, 0.20, 0.22, 0.32, 0.25, 0.22, 0.32, 0.25, 0.16, 0.42, 0.42, 0.16, 0.42, 0.42)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The shape of the encoder. `frames` × 15 joints span `seconds` on the device."""

    frames: int = 48
    seconds: float = 2.0
    coefficients: int = 20
    width: int = 176
    blocks: int = 4
    embedding: int = 128
    head: float = 0.5
    """Share of the head in the learned parts: 0 if all categories will be new, more if they were trained on."""
    slow: float = 0.4
    """Share of the slow pose, which is not learned, in the embedding's cosine."""
    temperature: float = 0.07
    """Softness of the match: the lower, the more the nearest support windows outweigh the rest."""


def dct_matrix(n: int, k: int) -> Tensor:
    """The first `k` rows of the orthonormal DCT-II of length `n`: (k, n). (Ahmed, Natarajan, Rao 1974.)"""
    t = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi / n * (t + 0.5) * torch.arange(k, dtype=torch.float64)[:, None])
    rows *= math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.float()


class Sized(nn.Module):
    """Fill hidden joints, then remove the camera's place and the body's size: the first half of `Normalise`.

    joints (B, T, 15, 3), visible (B, T, 15) → (B, 3, 15, T) of x, y and z in body units; the number of frames in which
    each joint was seen; and whether it was seen at all, nearly 1 or 0: both (B, 1, 15, 1). Frames come last, so that
    whatever mixes frames is one large product instead of a small one per window. x, y and z come before the joints, so
    that sums over them are elementwise, like everything else.
    """

    fill: Tensor
    sum: Tensor
    bones: Tensor
    limit: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        t = torch.arange(frames, dtype=torch.float32)
        # Kernel regression over time; the floor lets a joint seen only far away still give its mean.
        kernel = torch.exp(-0.5 * ((t[:, None] - t) / 1.5) ** 2) + 1e-4
        # All but the first two have the axes of what they are combined with: windows, x y z, joints, frames.
        for name, value in (
            ("fill", kernel),
            ("sum", torch.ones(frames, 1)),
            ("bones", 1 / (torch.tensor(_BONES).reshape(1, 1, J - 1, 1) * frames)),
            ("limit", torch.full((1, 1, 1, 1), LIMIT)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, joints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, v = joints.permute(0, 3, 2, 1), visible.transpose(1, 2)[:, None]
        seen = v.sum(3, keepdim=True)
        # Origin at the mean of the joints seen: keeps the sums small (float16) whatever the camera's origin.
        x = (x - (x * v).sum((2, 3), keepdim=True) / (seen.sum(2, keepdim=True) + EPS)) * v
        near, share = over_frames(x, self.fill, 3), over_frames(v, self.fill, 1)
        known = seen / (seen + 1e-3)
        x = x + near * ((1 - v) * known / (share + EPS))
        # A joint that is never seen is put at the centre of the others in its frame.
        x = x + (x * known).sum(2, keepdim=True) / (known.sum(2, keepdim=True) + EPS) * (1 - known)

        # Size: mean ratio of the bones seen to the reference body.
        bone = x[:, :, 1:] - x[:, :, _PARENT]
        square = bone * bone
        long = torch.sqrt(square[:, :1] + square[:, 1:2] + square[:, 2:] + 1e-10)
        length = over_frames(long, self.sum, 1, J - 1) * self.bones
        weight = known[:, :, 1:] * known[:, :, _PARENT]
        # With no bone seen the scale stays 1. The limit keeps a stray joint from dominating the batch statistics.
        scale = (weight.sum(2, keepdim=True) + PRIOR) / ((length * weight).sum(2, keepdim=True) + PRIOR)
        # Not `clamp`: with it TensorRT 8.6 does not compile the graph as one (builder/operations.py, `check_whole`).
        return torch.maximum(torch.minimum(x * scale, self.limit), -self.limit), seen, known


class Turned(nn.Module):
    """Make joints relative to the pelvis, and turn the body to face the camera: the second half of `Normalise`.

    x (B, 3, 15, n), its mean over the frames (B, 3, 15, 1), whether each joint was seen (B, 1, 15, 1) → as x. This is
    linear in x, so x may be frames, or the result of any linear map over them, such as the DCT; `one` (1, 1, 1, n) is
    then what that map makes of a 1 in every frame.
    """

    root: Tensor
    level: Tensor
    upright: Tensor
    crossed: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (
            ("root", torch.eye(J)[:1].reshape(1, 1, J, 1)),
            # A turn about y is (x, y, z) · (cos, 1, cos) + (z, y, x) · (sin, 0, −sin).
            ("level", torch.tensor([1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)),
            ("upright", torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1)),
            ("crossed", torch.tensor([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, mean: Tensor, known: Tensor, one: Tensor) -> Tensor:
        # Turn so that the mean line of shoulders and hips, from right to left, points along −x.
        across = (mean[:, :, _RIGHT] - mean[:, :, _LEFT]) * (known[:, :, _RIGHT] * known[:, :, _LEFT])
        across = across.sum(2, keepdim=True)
        cos, sin = across[:, :1], across[:, 2:]
        unit = torch.sqrt(cos * cos + sin * sin + EPS)
        x = x - x[:, :, :1] * (1 - self.root) - mean[:, :, :1] * (self.root * one)
        return x * (cos / unit * self.level + self.upright) + x[:, [2, 1, 0]] * (sin / unit * self.crossed)


class Normalise(nn.Module):
    """Fill hidden joints, then remove place, heading and body size. There is no other implementation of this.

    joints (B, T, 15, 3), visible (B, T, 15) → (B, 3, 15, T) of x, y and z in body units, and the share of frames in
    which each joint was seen (B, 1, 15, 1). Joint 0 (pelvis) holds the path of the body relative to its mean; the
    others are relative to joint 0.
    """

    one: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.sized, self.turned = Sized(frames), Turned()
        self.register_buffer("one", torch.ones(1, 1, 1, frames), persistent=False)

    def forward(self, joints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        x, seen, known = self.sized(joints, visible)
        t = self.one.shape[3]
        return self.turned(x, x.sum(3, keepdim=True) / t, known, self.one), seen / t


def over_frames(x: Tensor, weight: Tensor, parts: int, joints: int = J) -> Tensor:
    """Multiply x (B, parts, joints, T) by weight (T, n), as one product of two matrices: (B, parts, joints, n).

    The sizes are arguments, not read from x, so that no shape is computed while an engine runs.
    """
    return torch.matmul(x.reshape(-1, weight.shape[0]), weight).reshape(-1, parts, joints, weight.shape[1])


class GraphConv(nn.Module):
    """A·X·W over joints with a learned joint-by-joint A: (B, 15, F) → (B, 15, F')."""

    def __init__(self, joints: int, features_in: int, features_out: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.eye(joints) + torch.randn(joints, joints) * 0.05)
        self.linear = nn.Linear(features_in, features_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.mix, self.linear(x))


class Norm(nn.Module):
    """Batch normalisation per joint and feature on (B, 15, F); exported as a scale and a shift (builder/slim.py)."""

    def __init__(self, joints: int, features: int) -> None:
        super().__init__()
        self.shape = (joints, features)
        self.norm = nn.BatchNorm1d(joints * features)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.reshape(-1, self.shape[0] * self.shape[1])).reshape(-1, *self.shape)
        return y


class Block(nn.Module):
    """Two graph convolutions with a residual path."""

    def __init__(self, joints: int, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            GraphConv(joints, width, width), Norm(joints, width), nn.ReLU(), nn.Dropout(dropout),
            GraphConv(joints, width, width), Norm(joints, width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Head(nn.Module):
    """Projects the joints' features (B, 15, W) to what the training loss compares (B, 128)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, NARROW)
        self.leave = nn.Linear(J * NARROW + width, HEAD)

    def forward(self, h: Tensor) -> Tensor:
        narrow = torch.relu(self.narrow(h)).reshape(-1, J * NARROW)
        z: Tensor = self.leave(torch.cat([narrow, h.sum(1) / J], -1))
        return z


class Encoder(nn.Module):
    """joints (B, T, 15, 3), visible (B, T, 15) → embedding (B, D) of unit length.

    Three parts side by side, each scaled to unit length and then weighted: the joints' features, condensed by a fixed
    linear map; the output of the head behind them, which the loss compares; and the slow pose, the first DCT
    coefficients before anything learned. The head separates trained categories best, and discards what they do not
    need. Categories that were not trained on are separated better by the features before it (Chen et al., arXiv
    2002.05709, section 4.2). Posture, of which training keeps little, is separated better still by the slow pose.
    `trainer.head` fits the fixed maps.
    """

    dct: Tensor
    share: Tensor

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or EncoderConfig()
        self.normalise = Normalise(c.frames)
        # Stored with the weights, because their hash names the model in every result: other shares, another model.
        self.register_buffer("share", shares(c.head, c.slow))
        self.register_buffer("dct", dct_matrix(c.frames, c.coefficients) / math.sqrt(c.frames), persistent=False)
        features = c.coefficients * 3 + 1
        self.scale_in = Norm(J, features)
        self.enter = nn.Sequential(GraphConv(J, features, c.width), Norm(J, c.width), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(J, c.width) for _ in range(c.blocks)))
        self.head = Head(c.width)
        behind, slow = c.embedding * 5 // 16, c.embedding * 3 // 16
        self.narrow = nn.Linear(c.width, min(NARROW, c.width), bias=False).requires_grad_(False)
        before = c.embedding - behind - slow
        self.leave = nn.Linear(J * self.narrow.out_features, before, bias=False).requires_grad_(False)
        self.leave_head = nn.Linear(HEAD, behind, bias=False).requires_grad_(False)
        self.leave_slow = nn.Linear(J * 3 * min(SLOW, c.coefficients), slow, bias=False).requires_grad_(False)

    def spectrum(self, joints: Tensor, visible: Tensor) -> Tensor:
        """Each joint's DCT coefficients, and the share of frames in which it was seen: (B, 15, 3·coefficients + 1)."""
        x, seen = self.normalise(joints, visible)
        rows = over_frames(x, self.dct.T, 3).permute(0, 2, 3, 1)
        return torch.cat([rows.reshape(-1, J, self.dct.shape[0] * 3), seen.reshape(-1, J, 1)], -1)

    def features(self, spectrum: Tensor) -> Tensor:
        """Each joint's features after the graph convolutions: (B, 15, width)."""
        h: Tensor = self.blocks(self.enter(self.scale_in(spectrum)))
        return h

    def slow(self, spectrum: Tensor) -> Tensor:
        """The slow pose: the first coefficients of all joints, (B, 15·3·SLOW)."""
        size = self.leave_slow.in_features
        return spectrum[:, :, : size // J].reshape(-1, size)

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        spectrum = self.spectrum(joints, visible)
        h = self.features(spectrum)
        parts = (
            self.leave(self.narrow(h).reshape(-1, J * self.narrow.out_features)),
            self.leave_head(self.head(h)),
            self.leave_slow(self.slow(spectrum)),
        )
        weight = torch.sqrt(self.share)
        weighed = [_unit(z) * weight[i] for i, z in enumerate(parts)]
        # Without any visible joint the slow pose is all zeros, so only the other parts count.
        return _unit(torch.cat(weighed, -1))


def shares(head: float, slow: float) -> Tensor:
    """The shares (3,) of features, head and slow pose in the embedding's cosine; they sum to 1."""
    return torch.tensor([(1 - slow) * (1 - head), (1 - slow) * head, slow])


def _unit(z: Tensor) -> Tensor:
    return z / torch.sqrt((z * z).sum(-1, keepdim=True) + 1e-12)


class Match(nn.Module):
    """Cosine distance of each embedding to each category: a mean over its support that favours the nearest rows.

    embedding (B, D), support (G, K, D) unit rows, support_mask (G, K) in {0, 1} → distance (B, G) in [0, 2].
    With d_k = 1 − cos, distance = Σ w_k d_k, w = softmax(−d / τ) over the rows that the mask keeps.
    """

    zero: Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("zero", torch.zeros(1, 1, 1), persistent=False)

    def forward(self, embedding: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        # (G, K, B) throughout, so that no shape has to be computed while an engine runs.
        cosine = torch.matmul(support, embedding.transpose(0, 1))
        kept = mask[..., None]
        # The softmax relative to the greatest kept cosine: exact in float16 too, where exp(−1/τ) would vanish.
        nearest = (cosine * kept - 2 * (1 - kept)).amax(1, keepdim=True)
        weight = torch.exp(torch.minimum(cosine - nearest, self.zero) / self.temperature) * kept
        # Transposed last: TensorRT 8 may do so in float16, which resolves small distances finer than cosines near 1.
        return (1 - (cosine * weight).sum(1) / (weight.sum(1) + 1e-6)).transpose(0, 1)


class Graph(nn.Module):
    """Encoder and match as one graph, which `haad-edge build` exports."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.match = Match(encoder.config.temperature)

    def forward(self, joints: Tensor, visible: Tensor, support: Tensor, support_mask: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.encoder(joints, visible)
        return embedding, self.match(embedding, support, support_mask)
