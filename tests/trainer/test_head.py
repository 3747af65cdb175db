"""The map that the embedding is condensed by, against numpy's own decomposition."""

from __future__ import annotations

import numpy as np
import torch

from tests.trainer.made import ENCODER, windows
from trainer.encoder import Encoder, EncoderConfig
from trainer.head import Learner, condense

MOTIONS = ("walk", "squat", "wave", "clap", "jog", "lift_box")


def cosines(x: np.ndarray) -> np.ndarray:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def test_with_room_for_all_the_embedding_keeps_the_features_cosines() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(frames=16, seconds=1.0, coefficients=6, width=12, blocks=1, embedding=180))
    joints, visible = windows(*MOTIONS, frames=16)
    condense(encoder, [(joints, visible)])
    with torch.no_grad():
        features, z = encoder.features(joints, visible).flatten(1).numpy(), encoder(joints, visible).numpy()
    np.testing.assert_allclose(z @ z.T, cosines(features), atol=1e-4)


def test_with_little_room_it_keeps_what_numpys_decomposition_does() -> None:
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(frames=16, seconds=1.0, coefficients=6, width=12, blocks=1, embedding=3))
    joints, visible = windows(*MOTIONS, frames=16)
    condense(encoder, [(joints[:4], visible[:4]), (joints[4:], visible[4:])])
    with torch.no_grad():
        features, z = encoder.features(joints, visible).flatten(1).numpy(), encoder(joints, visible).numpy()
    rows = np.linalg.svd(features.astype(float), full_matrices=False)[2][:3]
    np.testing.assert_allclose(z @ z.T, cosines(features @ rows.T), atol=1e-3)
    assert torch.equal(encoder.leave.weight.gather(1, encoder.leave.weight.abs().argmax(1, keepdim=True)) > 0,
                       torch.ones(3, 1, dtype=torch.bool))  # fmt: skip


def test_the_loss_sees_the_head_and_trains_all_but_the_condensed_map() -> None:
    torch.manual_seed(2)
    learner = Learner(Encoder(ENCODER))
    z = learner(*windows(*MOTIONS, frames=16))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))
    (z[0] * z[1]).sum().backward()
    without = {k for k, p in learner.named_parameters() if p.grad is None}
    assert without == {"encoder.narrow.weight", "encoder.leave.weight"}
