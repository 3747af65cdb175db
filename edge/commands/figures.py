"""Draws clips as stick figures, seen from the front and slightly from the side, and writes the page that moves them.

The page is one HTML file. It loads nothing, and shows names from clip files as plain text, whatever they contain.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.clip import Clip
from edge.commands.sections import Section
from edge.skeleton import CORE15, PARENTS, Float, J

RATE = 15.0
"""Poses drawn per second."""
TURN = np.deg2rad(25)
"""The angle between the view and a person's front, so that a step forward shows."""
SIDES = [(CORE15.index(f"l_{j}"), CORE15.index(f"r_{j}")) for j in ("hip", "shoulder")]
TEMPLATE = Path(__file__).with_name("view.html")


def poses(clip: Clip) -> list[list[int | None]]:
    """For each pose drawn, x and y of every joint in thousandths of a square, y downwards; None for a hidden joint.

    The person stays in the middle, the clip's lowest joint is on the lower edge, and its tallest pose fills the square.
    2-D clips are drawn as they are.
    """
    times = np.arange(0, clip.seconds + 1e-9, 1 / min(RATE, clip.fps))
    joints, visible = clip.at(times)
    seen = visible > 0
    if not seen.any():
        nothing: list[int | None] = [None for _ in range(2 * J)]
        return [nothing for _ in times]
    flat = facing(joints, visible)
    x, y = flat[..., 0], -flat[..., 1]
    # A joint that jumps away for a moment neither shrinks the person nor leaves the square.
    low, high = np.quantile(y[seen], 0.002, method="higher"), np.quantile(y[seen], 0.998, method="lower")
    size = max(float(high - low), 2 * float(np.quantile(np.abs(x[seen]), 0.98)), 1e-6)
    px, py = np.clip(0.5 + x / size, 0, 1), np.clip(1 - (y - low) / size, 0, 1)
    points = np.stack([px, py], -1) * 1000
    return [
        [round(float(v)) if there else None for v, there in zip(p.ravel(), np.repeat(s, 2), strict=True)]
        for p, s in zip(points, seen, strict=True)
    ]


def facing(joints: Float, visible: Float) -> Float:
    """Turn poses (T, 15, 3) as a whole so that the person, on average, faces the reader: (T, 15, 2), y down, metres.

    2-D poses are left as they are. In each pose the pelvis, or if it is hidden the mean of the joints seen, is at
    x = 0. For pictures only: the model has its own normalisation.
    """
    if joints[..., 2].any():
        across = np.zeros(3)
        for left, right in SIDES:
            both = (visible[:, left] > 0) & (visible[:, right] > 0)
            across += (joints[both, right] - joints[both, left]).sum(0)
        # For a person who faces −z, left to right is +x; to a reader who stands there, +x is on the left.
        turn = np.arctan2(across[2], across[0]) + TURN
        x = -(joints[..., 0] * np.cos(turn) + joints[..., 2] * np.sin(turn))
    else:
        x = joints[..., 0]
    weight = visible / np.maximum(visible.sum(1, keepdims=True), 1e-9)
    centre = np.where(visible[:, :1] > 0, x[:, :1], (x * weight).sum(1, keepdims=True))
    flat: Float = np.stack([x - centre, -joints[..., 1]], -1).astype(np.float32)
    return flat


def figure(clip: Clip, title: str, notes: Sequence[str] = (), start: float = 0.0) -> dict[str, Any]:
    """A clip's data in the form that the page draws; its time axis begins at `start` seconds."""
    rate = min(RATE, clip.fps)
    return {
        "title": title,
        "notes": list(notes),
        "start": round(start, 3),
        "rate": rate,
        "seconds": max(clip.seconds, 1 / rate),
        "poses": poses(clip),
        "scores": None,
    }


def write_page(title: str, sections: Sequence[Section], near: Sequence[dict[str, Any]], *, judged: bool) -> str:
    """Make the page's HTML: clips by section, and the normal clips that they are shown beside (`near`)."""
    data = {
        "title": title,
        "names": CORE15,
        "parents": PARENTS,
        "judged": judged,
        "groups": [{"name": x.name, "command": x.command, "clips": x.cards} for x in sections],
        "near": list(near),
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", text)
