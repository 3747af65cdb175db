"""What stands between the encoder and the loss, and the maps that the embedding is made with afterwards.

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
    """joints (B, T, 15, 3), visible (B, T, 15) → rows of unit length (B, 128), which the loss compares."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        z = self.encoder.head(self.encoder.features(self.encoder.spectrum(joints, visible)))
        return nn.functional.normalize(z.float(), dim=-1)


@torch.no_grad()
def condense(encoder: Encoder, windows: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the encoder's fixed maps so that they keep most of what these windows' features hold, in place.

    `windows` are batches of joints (n, T, 15, 3) and visible (n, T, 15). First the directions that hold most of all
    joints' features alike, then of what remains of all joints together, then of what the head says, and of the slow
    pose, whose k-th coefficient counts 1/(k + 1): the greatest eigenvectors of the second moments. These are not
    centred, since the cosine that embeddings are compared by is not.
    """
    encoder.eval()
    spectrum = torch.cat([encoder.spectrum(j, v) for j, v in windows])
    h = encoder.features(spectrum)
    first = _directions(h.reshape(-1, h.shape[-1]), encoder.narrow.out_features)
    encoder.narrow.weight.copy_(first)
    encoder.leave.weight.copy_(_directions(encoder.narrow(h).flatten(1), encoder.leave.out_features))
    # Rows of unit length, as the loss compares them.
    z = nn.functional.normalize(encoder.head(h), dim=-1)
    encoder.leave_head.weight.copy_(_directions(z, encoder.leave_head.out_features))
    slow = encoder.slow(spectrum)
    kept = slow.shape[1] // (J * 3)
    weight = (1 / (1 + torch.arange(kept, device=slow.device))).repeat_interleave(3).repeat(J)
    slow = nn.functional.normalize(slow * weight, dim=-1)
    encoder.leave_slow.weight.copy_(_directions(slow, encoder.leave_slow.out_features) * weight)


def _directions(x: Tensor, count: int) -> Tensor:
    """(count, F): orthonormal rows that hold most of x (N, F); zero rows where `count` is more than F."""
    x = x.double()
    _, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = vectors.flip(1).T[:count]
    # An eigenvector's sign is anybody's guess; fixed, a model is the same wherever it is made.
    kept = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    return nn.functional.pad(kept, (0, 0, 0, count - len(kept)))
