"""What only training needs: the layers between the encoder's features and the loss, and the map that replaces them.

joints ─► Encoder.features (B, 15, W) ─┬─► Head ─► loss          while training
                                       └─► condense ─► embedding  afterwards, on the device
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edge.skeleton import J
from trainer.encoder import Encoder

SIZE = 128


class Learner(nn.Module):
    """joints (B, T, 15, 3), visible (B, T, 15) → rows of unit length (B, 128), which the loss compares."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.width
        self.narrow = nn.Linear(width, 32)
        self.leave = nn.Linear(J * 32 + width, SIZE)

    def forward(self, joints: Tensor, visible: Tensor) -> Tensor:
        h = self.encoder.features(joints, visible)
        z = self.leave(torch.cat([torch.relu(self.narrow(h)).reshape(-1, J * 32), h.sum(1) / J], -1))
        return nn.functional.normalize(z.float(), dim=-1)


@torch.no_grad()
def condense(encoder: Encoder, windows: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the encoder's last two maps so that they keep most of the features of these windows, in place.

    `windows` are batches of joints (n, T, 15, 3) and visible (n, T, 15). First the directions that hold most of all
    joints' features alike, then of what remains of all joints together: the greatest eigenvectors of the second
    moments. These are not centred, since the cosine that embeddings are compared by is not.
    """
    encoder.eval()
    h = torch.cat([encoder.features(j, v) for j, v in windows]).double()
    first = _directions(h.reshape(-1, h.shape[-1]), encoder.narrow.out_features)
    flat = (h @ first.T).reshape(len(h), -1)
    second = _directions(flat, encoder.leave.out_features)
    encoder.narrow.weight.copy_(first)
    encoder.leave.weight.copy_(second)


def _directions(x: Tensor, count: int) -> Tensor:
    """(count, F): orthonormal rows that hold most of x (N, F); zero rows where `count` is more than F."""
    _, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = vectors.flip(1).T[:count]
    # An eigenvector's sign is anybody's guess; fixed, a model is the same wherever it is made.
    kept = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    return nn.functional.pad(kept, (0, 0, 0, count - len(kept)))
