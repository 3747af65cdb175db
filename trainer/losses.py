"""Computes the supervised contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor


def supervised_contrastive(embedding: Tensor, label: Tensor, temperature: float, group: Tensor | None = None) -> Tensor:
    """−log softmax of each positive among all others, averaged over an anchor's positives, then over anchors.

    embedding (N, D) of unit rows, label (N,). With `group` (N,), negatives of another group are left out: a clip of the
    same action from another data set may have another label. (Khosla et al., arXiv 2004.11362, eq. 2.) Anchors without
    a positive do not count; if there are no others, the loss is 0.
    """
    same = label[:, None] == label
    other = ~torch.eye(len(label), dtype=torch.bool, device=label.device)
    allowed = other if group is None else other & (group[:, None] == group)
    logits = (embedding @ embedding.T / temperature).masked_fill(~allowed, float("-inf"))
    log_p = logits - torch.logsumexp(logits, 1, keepdim=True)
    positive = same & allowed
    count = positive.sum(1)
    per_anchor = -log_p.masked_fill(~positive, 0).sum(1) / count.clamp(min=1)
    has = count > 0
    return per_anchor[has].mean() if bool(has.any()) else embedding.sum() * 0
