"""What a trained encoder has to beat: no learning at all."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from edge.clip import Clip
from edge.score import match
from edge.skeleton import Float, J
from trainer.encoder import EncoderConfig, Normalise, dct_matrix

raw_distance = partial(match, temperature=0.05)
"""The distance that goes with `raw_dct`, as sharp as serves it best."""


@torch.no_grad()
def raw_dct(clips: list[Clip], config: EncoderConfig | None = None) -> Float:
    """The floor: normalised joints' first DCT coefficients as they are, flattened to unit rows (N, coefficients·45).

    Root, heading, size and hidden joints are dealt with by the encoder's own first stage, so that what differs is the
    learning alone.
    """
    c = config or EncoderConfig()
    views = [clip.resampled(c.frames) for clip in clips]
    joints, visible = (torch.from_numpy(np.stack(x)) for x in zip(*views, strict=True))
    x, _ = Normalise(c.frames)(joints, visible)
    z = (dct_matrix(c.frames, c.coefficients) @ x.reshape(-1, c.frames, J * 3)).reshape(len(clips), -1)
    out: Float = (z / z.norm(dim=1, keepdim=True).clamp_min(1e-9)).numpy()
    return out
