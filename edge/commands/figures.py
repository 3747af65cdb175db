"""Draws clips as stick figures, seen from the front and slightly from the side, and writes the page that moves them.

The page is one HTML file. It loads nothing, and shows names from clip files as plain text, whatever they contain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.clip import Clip
from edge.skeleton import CORE15, PARENTS, Float, J

RATE = 15.0
"""Poses drawn per second."""
TURN = np.deg2rad(25)
"""The angle between the view and a person's front, so that a step forward shows."""
SIDES = [(CORE15.index(f"l_{j}"), CORE15.index(f"r_{j}")) for j in ("hip", "shoulder")]
PELVIS = CORE15.index("pelvis")
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
    across = _across(joints, seen)
    x, y = joints[..., [0, 2]] @ across, joints[..., 1]
    x = x - _middle(x, seen)[:, None]
    # A joint that jumps away for a moment neither shrinks the person nor leaves the square.
    low, high = np.quantile(y[seen], 0.002, method="higher"), np.quantile(y[seen], 0.998, method="lower")
    size = max(float(high - low), 2 * float(np.quantile(np.abs(x[seen]), 0.98)), 1e-6)
    px, py = np.clip(0.5 + x / size, 0, 1), np.clip(1 - (y - low) / size, 0, 1)
    points = np.stack([px, py], -1) * 1000
    return [
        [round(float(v)) if there else None for v, there in zip(p.ravel(), np.repeat(s, 2), strict=True)]
        for p, s in zip(points, seen, strict=True)
    ]


def _across(joints: Float, seen: np.ndarray[Any, np.dtype[np.bool_]]) -> Float:
    """The weights of x and z in the picture's x, (2,): a person's left is on its right, as people face the viewer."""
    if not joints[..., 2].any():
        return np.array([1, 0], np.float32)
    parts = [(joints[:, a] - joints[:, b])[seen[:, a] & seen[:, b]][:, [0, 2]] for a, b in SIDES]
    found = np.concatenate(parts)
    left = found.mean(0) if len(found) else np.zeros(2)
    length = float(np.hypot(*left))
    left = left / length if length > 1e-6 else np.array([-1.0, 0.0])
    front = np.array([-left[1], left[0]])
    return np.asarray(np.cos(TURN) * left + np.sin(TURN) * front, np.float32)


def _middle(x: Float, seen: np.ndarray[Any, np.dtype[np.bool_]]) -> Float:
    """The picture's x (F,) of the pelvis, interpolated where it is hidden; the mean of all joints if it always is."""
    there = np.flatnonzero(seen[:, PELVIS])
    if len(there):
        return np.asarray(np.interp(np.arange(len(x)), there, x[there, PELVIS]), np.float32)
    return np.full(len(x), float(x[seen].mean()), np.float32)


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


def write_page(
    title: str, groups: Mapping[str, Sequence[dict[str, Any]]], near: Sequence[dict[str, Any]], *, judged: bool
) -> str:
    """Make the page's HTML: clips by group, and the normal clips that they are shown beside (`near`)."""
    data = {
        "title": title,
        "names": CORE15,
        "parents": PARENTS,
        "judged": judged,
        "groups": [{"name": name, "clips": list(clips)} for name, clips in groups.items()],
        "near": list(near),
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", text)
