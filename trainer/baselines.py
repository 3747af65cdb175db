"""Describes clips without any learning: the baseline that a trained encoder has to beat."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from edge.clip import Clip
from edge.score import match
from edge.skeleton import Float
from trainer.encoder import EncoderConfig, Normalise, dct_matrix

raw_distance = partial(match, temperature=0.05)
"""The distance that goes with `raw_dct`, at the temperature that works best for it."""


def raw_dct(clips: list[Clip], config: EncoderConfig | None = None) -> Float:
    """The floor: the first DCT coefficients of the normalised joints, as unit rows (N, coefficients·45).

    The encoder's own first stage deals with root, heading, size and hidden joints. Learning is not the only difference
    from the encoder: its embedding of a clip is the mean of six cuts, which helps here too (`benchmarks.accuracy`).
    """
    c = config or EncoderConfig()
    views = [clip.resampled(c.frames) for clip in clips]
    joints, visible = (np.stack(x) for x in zip(*views, strict=True))
    return raw_windows(joints, visible, c)


@torch.no_grad()
def raw_windows(joints: Float, visible: Float, config: EncoderConfig | None = None) -> Float:
    """The same for windows: joints (N, T, 15, 3), visible (N, T, 15)."""
    frames, coefficients = joints.shape[1], (config or EncoderConfig()).coefficients
    x, _ = Normalise(frames)(torch.from_numpy(joints), torch.from_numpy(visible))
    z = (x @ dct_matrix(frames, coefficients).T).permute(0, 3, 2, 1).reshape(len(joints), -1)
    out: Float = (z / z.norm(dim=1, keepdim=True).clamp_min(1e-9)).numpy()
    return out
