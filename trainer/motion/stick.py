"""Draws strips of stick figures as SVG: a row for each clip, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from edge.commands.figures import TURN
from edge.skeleton import CORE15, PARENTS, Float

FIGURES = 10
CELL, HEIGHT, LABEL = 86.0, 150.0, 165.0
METRE = 62.0
_SIDE = {"l": "#1f6fb4", "r": "#c8501e"}


@dataclass(frozen=True, slots=True)
class Strip:
    """One row: body (F, 15, 3) in metres of the reference body, facing −z; the first `kept` frames are drawn grey."""

    label: str
    body: Float
    kept: int = 0


def draw_strips(title: str, strips: Sequence[Strip]) -> str:
    """Draw the whole picture, as SVG text."""
    width, height = LABEL + FIGURES * CELL + 10, 34 + len(strips) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
        f'<text x="10" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for i, strip in enumerate(strips):
        ground = 34 + (i + 1) * HEIGHT - 12
        parts.append(f'<text x="10" y="{ground - HEIGHT / 2:.0f}">{escape(strip.label)}</text>')
        parts.append(f'<path d="M{LABEL:.0f} {ground:.1f}H{width - 10:.0f}" stroke="#ddd"/>')
        frames = np.linspace(0, len(strip.body) - 1, FIGURES).round().astype(int)
        # One ground line for the row, at the lowest that an ankle gets, so that figures can leap from it.
        low = float(strip.body[frames][:, [CORE15.index("l_ankle"), CORE15.index("r_ankle")], 1].min())
        for n, frame in enumerate(frames):
            middle = LABEL + (n + 0.5) * CELL
            parts.append(_figure(strip.body[frame], middle, ground - 4, low, grey=bool(frame < strip.kept)))
    return "\n".join([*parts, "</svg>\n"])


def _figure(pose: Float, middle: float, ground: float, low: float, *, grey: bool) -> str:
    """Draw one pose (15, 3), its pelvis in the middle of the cell."""
    x = -((pose[:, 0] - pose[0, 0]) * np.cos(TURN) + (pose[:, 2] - pose[0, 2]) * np.sin(TURN))
    # A wild pose stays within the picture.
    px = middle + np.clip(x * METRE, -CELL, CELL)
    py = ground - np.clip((pose[:, 1] - low) * METRE, -20, HEIGHT)
    lines = []
    for j in range(1, len(CORE15)):
        colour = "#999" if grey else _SIDE.get(CORE15[j][0] if CORE15[j][1] == "_" else "", "#222")
        p = PARENTS[j]
        lines.append(f'<path d="M{px[p]:.1f} {py[p]:.1f}L{px[j]:.1f} {py[j]:.1f}" stroke="{colour}"/>')
    head = CORE15.index("head")
    lines.append(f'<circle cx="{px[head]:.1f}" cy="{py[head]:.1f}" r="4.5" fill="#fff" stroke="#222"/>')
    return f'<g fill="none" stroke-width="2.2" stroke-linecap="round">{"".join(lines)}</g>'
