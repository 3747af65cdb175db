"""What a tracker sees of somebody who walks, in the joints of its layout."""

from __future__ import annotations

import numpy as np

from edge.motion import make_motion
from edge.skeleton import CORE15, Float, get_layout

WIDTH, HEIGHT, FRAMES = 640, 480, 45


def walker(layout: str) -> Float:
    """x, y in pixels and confidence: (FRAMES, J, 3). Joints that core15 lacks are where its head is, or unseen."""
    clip, names = make_motion("walk", seconds=2), get_layout(layout).joints
    out = np.zeros((FRAMES, len(names), 3), np.float32)
    for j, name in enumerate(names):
        at = name if name in CORE15 else "head" if name in ("nose", "l_eye", "r_eye", "l_ear", "r_ear") else ""
        if at:
            place = clip.joints[:FRAMES, CORE15.index(at)]
            out[:, j] = np.column_stack([320 + 100 * place[:, 0], 400 - 150 * place[:, 1], np.full(FRAMES, 0.9)])
    return out
