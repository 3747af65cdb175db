"""The maps that condense the embedding, compared with numpy's own decomposition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer.made import ENCODER, windows
from trainer.encoder import Encoder, EncoderConfig
from trainer.head import Learner, condense

MOTIONS = ("walk", "squat", "wave", "clap", "jog", "lift_box")
SMALL = EncoderConfig(frames=16, seconds=1.0, coefficients=6, width=12, blocks=1)


def cosines(x: np.ndarray) -> np.ndarray:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


@torch.no_grad()
def fitted(**given: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The features of some motions, the head's output for them, the weighted slow pose, and the embeddings."""
    torch.manual_seed(0)
    encoder = Encoder(replace(SMALL, **given))  # type: ignore[arg-type]
    joints, visible = windows(*MOTIONS, frames=16)
    condense(encoder, [(joints[:4], visible[:4]), (joints[4:], visible[4:])])
    spectrum = encoder.spectrum(joints, visible)
    h = encoder.features(spectrum)
    slow = spectrum.numpy()[:, :, :-1].reshape(-1, 15, 6, 3)[:, :, :4] / np.arange(1, 5)[:, None]
    return h.flatten(1).numpy(), encoder.head(h).numpy(), slow.reshape(len(h), -1), encoder(joints, visible).numpy()


@pytest.mark.parametrize(("share", "slow"), [(0.0, 0.4), (0.25, 0.0), (1.0, 0.2), (0.5, 1.0)])
def test_with_room_for_all_the_embedding_keeps_its_parts_cosines(share: float, slow: float) -> None:
    features, behind, pose, z = fitted(embedding=640, head=share, slow=slow)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    learnt = (1 - share) * cosines(features) + share * cosines(behind)
    np.testing.assert_allclose(z @ z.T, (1 - slow) * learnt + slow * cosines(pose), atol=1e-4)


def test_with_little_room_it_keeps_what_numpys_decomposition_does() -> None:
    features, behind, pose, z = fitted(embedding=16, head=0.25, slow=0.2)  # eight, five and three numbers
    kept = []
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (behind, pose)]
    for x, count in ((features, 8), (unit[0], 5), (unit[1], 3)):
        rows = np.linalg.svd(x.astype(float), full_matrices=False)[2][:count]
        kept.append(cosines(x @ rows.T))
    np.testing.assert_allclose(z @ z.T, 0.6 * kept[0] + 0.2 * kept[1] + 0.2 * kept[2], atol=1e-3)


def test_the_loss_sees_the_head_and_trains_all_but_the_fixed_maps() -> None:
    torch.manual_seed(2)
    encoder = Encoder(ENCODER)
    z = Learner(encoder)(*windows(*MOTIONS, frames=16))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))
    (z[0] * z[1]).sum().backward()
    without = {k for k, p in encoder.named_parameters() if p.grad is None}
    assert without == {"narrow.weight", "leave.weight", "leave_head.weight", "leave_slow.weight"}
