"""What stands between the encoder and the loss, and the maps that the embedding is made with afterwards.

joints ─► Encoder.features (B, 15, W) ─┬─────────────────► condensed ─┬─► embedding, on the device
                                       └─► Encoder.head ─► condensed ─┘
                                                └────────► loss, while training
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.encoder import Encoder


class Learner(nn.Module):
    """joints (B, T, 15, 3), visible (B, T, 15) → rows of unit length (B, 128), which the loss compares."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        z = self.encoder.head(self.encoder.features(joints, visible))
        return nn.functional.normalize(z.float(), dim=-1)


@torch.no_grad()
def condense(encoder: Encoder, windows: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the encoder's fixed maps so that they keep most of what these windows' features hold, in place.

    `windows` are batches of joints (n, T, 15, 3) and visible (n, T, 15). First the directions that hold most of all
    joints' features alike, then of what remains of all joints together, then of what the head says: the greatest
    eigenvectors of the second moments. These are not centred, since the cosine that embeddings are compared by is not.
    """
    encoder.eval()
    h = torch.cat([encoder.features(j, v) for j, v in windows])
    first = _directions(h.reshape(-1, h.shape[-1]), encoder.narrow.out_features)
    encoder.narrow.weight.copy_(first)
    encoder.leave.weight.copy_(_directions(encoder.narrow(h).flatten(1), encoder.leave.out_features))
    # Rows of unit length, as the loss compares them.
    z = nn.functional.normalize(encoder.head(h), dim=-1)
    encoder.leave_head.weight.copy_(_directions(z, encoder.leave_head.out_features))


def _directions(x: Tensor, count: int) -> Tensor:
    """(count, F): orthonormal rows that hold most of x (N, F); zero rows where `count` is more than F."""
    x = x.double()
    _, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = vectors.flip(1).T[:count]
    # An eigenvector's sign is anybody's guess; fixed, a model is the same wherever it is made.
    kept = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    return nn.functional.pad(kept, (0, 0, 0, count - len(kept)))
