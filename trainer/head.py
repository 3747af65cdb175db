"""Connects the encoder with the training loss, and fits the embedding's fixed maps after training.

joints ─► spectrum ─┬─► Encoder.features ─┬─────────────────► condensed ─┬─► embedding, on the device
                    │                     └─► Encoder.head ─► condensed ─┤
                    │                              └──► loss, training   │
                    └─► its first coefficients ───────────► condensed ───┘
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edge.skeleton import J
from trainer.encoder import Encoder


class Learner(nn.Module):
    """The encoder up to its head: joints (B, T, 15, 3), visible (B, T, 15) → unit rows (B, 128) for the loss."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        z = self.encoder.head(self.encoder.features(self.encoder.spectrum(joints, visible)))
        return nn.functional.normalize(z.float(), dim=-1)


@torch.no_grad()
def condense(encoder: Encoder, windows: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the encoder's fixed maps, in place, so that they keep as much as possible of these windows' features.

    `windows` are batches of joints (n, T, 15, 3) and visible (n, T, 15). Each map projects to the eigenvectors of the
    second moments with the greatest eigenvalues: first one map shared by all joints' features, then one of its result
    for all joints together, one of the head's output, and one of the slow pose, whose k-th coefficient (from 0) has
    weight 1/(k + 1). The moments are not centred, since the cosine that compares embeddings is not either.
    """
    encoder.eval()
    spectrum = torch.cat([encoder.spectrum(j, v) for j, v in windows])
    h = encoder.features(spectrum)
    first = _directions(h.reshape(-1, h.shape[-1]), encoder.narrow.out_features)
    encoder.narrow.weight.copy_(first)
    encoder.leave.weight.copy_(_directions(encoder.narrow(h).flatten(1), encoder.leave.out_features))
    # Unit rows, as the loss compares them.
    z = nn.functional.normalize(encoder.head(h), dim=-1)
    encoder.leave_head.weight.copy_(_directions(z, encoder.leave_head.out_features))
    slow = encoder.slow(spectrum)
    kept = slow.shape[1] // (J * 3)
    weight = (1 / (1 + torch.arange(kept, device=slow.device))).repeat_interleave(3).repeat(J)
    slow = nn.functional.normalize(slow * weight, dim=-1)
    encoder.leave_slow.weight.copy_(_directions(slow, encoder.leave_slow.out_features) * weight)


def _directions(x: Tensor, count: int) -> Tensor:
    """Orthonormal rows (count, F) that keep most of x (N, F); padded with zero rows if `count` is more than F."""
    x = x.double()
    _, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = vectors.flip(1).T[:count]
    # The sign of an eigenvector is arbitrary; it is fixed so that the model is the same wherever it is made.
    kept = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    return nn.functional.pad(kept, (0, 0, 0, count - len(kept)))
