"""Trains recipe `paper`, the method of arXiv 2508.17726 as published, for comparison. The device does not run it.

    first 60 frames, pelvis of frame 0 at the origin, last pose repeated ─► DCT, 10 coefficients ─► graph
    convolutions ─► the greatest of each joint's 30 features ─► one number per joint; score: mean Euclidean distance

A batch has two clips of each seen category; the loss uses cosine similarity at temperature 1, with every other clip of
the category as a positive. Unlike `trainer.encoder`, it is not invariant to view, body size, duration or hidden joints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.clip import Clip
from edge.errors import ClipError
from edge.skeleton import Float
from trainer.encoder import dct_matrix
from trainer.losses import supervised_contrastive

FRAMES, COEFFICIENTS, WIDTH, BLOCKS = 60, 10, 128, 4


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Training as published: 101 epochs of 52 steps, the rate constant for 5 epochs and then falling linearly."""

    epochs: int = 101
    steps: int = 52
    constant: int = 5
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    clips: int = 2
    seed: int = 0


class PaperConv(nn.Module):
    """A·X·W with a fully learned A and no bone prior: (B, J, F) → (B, J, F')."""

    def __init__(self, joints: int, features_in: int, features_out: int, *, bias: bool) -> None:
        super().__init__()
        bound = features_out**-0.5
        self.mix = nn.Parameter(torch.empty(joints, joints).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.empty(features_in, features_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(features_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix @ (x @ self.weight)
        return y if self.bias is None else y + self.bias


class Activated(nn.Module):
    """A graph convolution, batch normalisation over joint and feature, tanh."""

    def __init__(self, joints: int, features_in: int, features_out: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = PaperConv(joints, features_in, features_out, bias=bias)
        self.norm = nn.BatchNorm1d(joints * features_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = torch.tanh(self.norm(y.flatten(1)).view_as(y))
        return out


class PaperEncoder(nn.Module):
    """joints (B, 60, J, 3) → embedding (B, J). 199,966 parameters at 24 joints."""

    dct: Tensor

    def __init__(self, joints: int) -> None:
        super().__init__()
        features = 3 * COEFFICIENTS
        self.register_buffer("dct", dct_matrix(FRAMES, COEFFICIENTS), persistent=False)
        self.enter = Activated(joints, features, WIDTH, bias=True)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Activated(joints, WIDTH, WIDTH, bias=False) for _ in range(2))) for _ in range(BLOCKS)
        )
        self.leave = PaperConv(joints, WIDTH, features, bias=True)

    def forward(self, joints: Tensor) -> Tensor:
        b, _, j, _ = joints.shape
        x = (self.dct @ joints.reshape(b, FRAMES, j * 3)).reshape(b, COEFFICIENTS, j, 3)
        x = x.transpose(1, 2).reshape(b, j, 3 * COEFFICIENTS)
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h)
        out: Tensor = (self.leave(h) + x).amax(-1)
        return out


def prepare(clips: list[Clip]) -> Float:
    """Prepare clips as published: the first 60 frames, or the last one repeated, frame 0's pelvis at the origin.

    Returns (N, 60, 15, 3); the path is kept.
    """
    out = np.empty((len(clips), FRAMES, *clips[0].joints.shape[1:]), np.float32)
    for i, clip in enumerate(clips):
        part = clip.joints[np.minimum(np.arange(FRAMES), len(clip.joints) - 1)]
        out[i] = part - part[0, 0]
    return out


def paper_loss(embedding: Tensor, label: Tensor) -> Tensor:
    """The contrastive loss as published: cosine similarity, temperature 1, all others in the denominator."""
    return supervised_contrastive(nn.functional.normalize(embedding, dim=1), label, 1.0)


def train_paper(
    joints: Float,
    label: NDArray[np.int64],
    config: PaperConfig | None = None,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> PaperEncoder:
    """Train on prepared clips (N, 60, J, 3) and labels (N,). Raises ClipError if a category has too few clips."""
    c = config or PaperConfig()
    torch.manual_seed(c.seed)
    rng = np.random.default_rng(c.seed)
    members = [np.flatnonzero(label == g) for g in np.unique(label)]
    if min(map(len, members)) < c.clips:
        raise ClipError(f"recipe paper draws {c.clips} clips of each category, and one category has fewer")
    encoder = PaperEncoder(joints.shape[2])
    optimiser = torch.optim.AdamW(encoder.parameters(), c.learning_rate, weight_decay=c.weight_decay)
    encoder.train()
    for epoch in range(c.epochs):
        rate = c.learning_rate * min(1.0, (c.epochs - epoch) / (c.epochs - c.constant))
        for group in optimiser.param_groups:
            group["lr"] = rate
        total = 0.0
        for _ in range(c.steps):
            chosen = np.concatenate([rng.choice(m, c.clips, replace=False) for m in members])
            loss = paper_loss(encoder(torch.from_numpy(joints[chosen])), torch.from_numpy(label[chosen]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(loss.detach())
        report(epoch + 1, total / c.steps)
    return encoder.eval()


@torch.no_grad()
def embed_paper(encoder: PaperEncoder, joints: Float) -> Float:
    """Embed prepared clips, in evaluation mode: (N, J)."""
    encoder.eval()
    out: Float = torch.cat([encoder(torch.from_numpy(joints[i : i + 256])) for i in range(0, len(joints), 256)]).numpy()
    return out


def mean_euclidean(embedding: Float, support: Float) -> NDArray[np.float64]:
    """The published score: the mean Euclidean distance of each embedding (N, D) to the support (K, D): (N,)."""
    return np.asarray(np.linalg.norm(embedding[:, None] - support[None], axis=-1).mean(1), np.float64)
