"""Draws the pictures of an evaluation report as SVG text, without a plotting library.

Each function gives a whole `<svg>` or, for `strip`, a `<g>` to place in one. Colours are CSS classes and variables of
the page (`trainer/report.py`), so that one picture suits light and dark mode. All names are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip
from edge.commands.figures import facing
from edge.skeleton import CORE15, PARENTS

GOLDEN = 0.618034
POSE_WIDTH, POSE_HEIGHT = 56.0, 92.0
Points = NDArray[np.floating]


def svg(width: float, height: float, body: str, label: str, kind: str = "") -> str:
    """A whole picture in its own units; the page decides how large it appears. `label` is for screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'class="{kind}" aria-label="{escape(label)}">{body}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{kind}"/>'


def path(points: Points, kind: str) -> str:
    """A line through points (N, 2)."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{kind}"/>'


def strip(clip: Clip, *, poses: int = 8, width: float = POSE_WIDTH, height: float = POSE_HEIGHT) -> str:
    """A clip as a row of stick figures at equal time steps: a `<g>` of (poses · width) × height, its top left at 0, 0.

    Left limbs have class `l`, right limbs `r`, trunk and head `m`; hidden joints and their bones are not drawn. The
    whole clip has one scale, so that a crouch is low and a jump high.
    """
    joints, visible = clip.resampled(poses)
    flat, seen = facing(joints, visible), visible > 0
    shown = flat[seen]
    low, high = (shown.min(0), shown.max(0)) if len(shown) else (np.zeros(2), np.ones(2))
    scale = min((height - 14) / max(high[1] - low[1], 0.3), width / max(2 * np.abs(shown[:, 0]).max(initial=0.1), 0.3))
    ground = height - 4
    out = [line(0, ground, poses * width, ground, "ground")]
    for t in range(poses):
        at = np.empty((len(CORE15), 2))
        at[:, 0] = (t + 0.5) * width + flat[t, :, 0] * scale
        at[:, 1] = ground - (high[1] - flat[t, :, 1]) * scale
        bones: dict[str, list[str]] = {"l": [], "r": [], "m": []}
        for joint, parent in enumerate(PARENTS):
            if parent >= 0 and seen[t, joint] and seen[t, parent]:
                (x0, y0), (x1, y1) = at[parent], at[joint]
                side = CORE15[joint][0] if CORE15[joint][1] == "_" else "m"
                bones[side].append(f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}")
        out += [f'<path d="{"".join(b)}" class="bone {side}"/>' for side, b in bones.items() if b]
        head = CORE15.index("head")
        if seen[t, head]:
            out.append(f'<circle cx="{at[head, 0]:.1f}" cy="{at[head, 1]:.1f}" r="4.2" class="bone m head"/>')
    return f"<g>{''.join(out)}</g>"


def strip_picture(clip: Clip, label: str, poses: int = 8) -> str:
    """A strip as a picture of its own, with the times of the clip's start and end below."""
    width = poses * POSE_WIDTH
    body = strip(clip, poses=poses) + text(2, POSE_HEIGHT + 11, "0 s", "small")
    body += text(width - 2, POSE_HEIGHT + 11, f"{clip.seconds:.1f} s", "small", "end")
    return svg(width, POSE_HEIGHT + 16, body, label, "strip")


def roc(curves: Mapping[str, Points], grid: Points, *, corner: float | None = None) -> str:
    """Plot detection over false alarms: one line per curve, in classes c0, c1, …; the first is drawn on top.

    curves hold detection (N,) at the false-alarm rates grid (N,). `corner` limits the plot to false-alarm rates up to
    it, and to detection from 1 − corner on.
    """
    size, left, bottom = 300.0, 46.0, 40.0
    span = corner or 1.0
    ticks = np.linspace(0, span, 6)
    out = []
    for t in ticks:
        x, y = left + t / span * size, 8 + t / span * size
        out += [line(x, 8, x, 8 + size, "grid"), line(left, y, left + size, y, "grid")]
        out += [
            text(x, 8 + size + 15, f"{t:.3g}", "small", "middle"),
            text(left - 5, y + 4, f"{1 - t:.3g}", "small", "end"),
        ]
    out.append(text(left + size / 2, 8 + size + 33, "share of normal clips flagged", "small", "middle"))
    out.append(
        f'<text transform="translate(11 {8 + size / 2:.0f}) rotate(-90)" class="small" text-anchor="middle">'
        "share of other clips caught</text>"
    )
    if corner is None:
        out.append(line(left, 8 + size, left + size, 8, "chance"))
    for n, name in reversed(list(enumerate(curves))):
        points = np.stack([grid, curves[name]], 1)
        if corner is not None:
            # Each line is cut where it enters the corner.
            rates = np.union1d(grid[grid <= span], [span])
            points = np.stack([rates, np.interp(rates, grid, curves[name])], 1)
            points = points[points[:, 1] >= 1 - span] if (points[:, 1] >= 1 - span).any() else points[:0]
        x = left + points[:, 0] / span * size
        y = 8 + (1 - points[:, 1]) / span * size
        start = [(left, 8 + size)] if corner is None else []
        out.append(path(np.array([*start, *zip(x, y, strict=True)]).reshape(-1, 2), f"curve c{n}"))
    return svg(left + size + 14, size + bottom + 8, "".join(out), "ROC curves: " + ", ".join(curves), "roc")


def small_roc(curves: Sequence[Points], grid: Points, label: str) -> str:
    """A small ROC plot of one category, 100 × 100; curves (N,) in classes c0, c1, …"""
    out = ['<rect x="0" y="0" width="100" height="100" class="frame"/>', line(0, 100, 100, 0, "chance")]
    for n in reversed(range(len(curves))):
        points = np.stack([grid * 100, 100 - curves[n] * 100], 1)[::4]
        out.append(path(np.vstack([[(0.0, 100.0)], points]), f"curve c{n}"))
    return svg(100, 100, "".join(out), label, "mini")


def bars(rows: Sequence[tuple[str, Sequence[float], float, float, bool]], methods: Sequence[str]) -> str:
    """Draw horizontal bars, one row per category: (name, AUROC of each method, low, high, unseen).

    The first method is the bar, with its interval [low, high] as a whisker; the others are marks on it. The axis begins
    at 0.5, which is chance, or lower if a figure is lower.
    """
    least = min([0.5] + [v for _, values, low, _, _ in rows for v in (*values, low)])
    zero = math.floor(least * 10) / 10
    longest = max(len(name) + 4 * unseen for name, *_, unseen in rows)
    left, size, step, top = min(260.0, 14 + 7.6 * longest), 360.0, 22.0, 22.0

    def x(v: float) -> float:
        return left + (v - zero) / (1 - zero) * size

    end = top + step * len(rows)
    out = []
    for t in np.arange(zero, 1.001, 0.1).tolist():
        out += [line(x(t), top - 4, x(t), end, "grid"), text(x(t), top - 8, f"{t:.1f}", "small", "middle")]
    if zero < 0.5:
        out.append(line(x(0.5), top - 4, x(0.5), end, "chance"))
    for i, (name, values, low, high, unseen) in enumerate(rows):
        y = top + step * i + step / 2
        shown = name if len(name) <= 32 else name[:31] + "…"
        out.append(text(left - 8, y + 4, shown + (" ◆" if unseen else ""), "label", "end"))
        out.append(
            f'<rect x="{x(zero):.1f}" y="{y - 6:.1f}" width="{max(0.0, x(values[0]) - x(zero)):.1f}" height="12" '
            f'class="bar"><title>{escape(name)}: {values[0]:.4f}</title></rect>'
        )
        out.append(line(x(low), y, x(high), y, "whisker"))
        for n, value in enumerate(values[1:], 1):
            out.append(
                f'<line x1="{x(value):.1f}" y1="{y - 9:.1f}" x2="{x(value):.1f}" y2="{y + 9:.1f}" class="mark c{n}">'
                f"<title>{escape(methods[n])}: {value:.4f}</title></line>"
            )
        out.append(text(left + size + 8, y + 4, f"{values[0]:.3f}", "small"))
    return svg(left + size + 48, end + 6, "".join(out), "AUROC of each category beside " + ", ".join(methods), "bars")


def colour(n: int) -> str:
    """The n-th of an endless series of colours: hue by the golden ratio, two chromas; the page sets the lightness.

    In OKLCH, because there equal lightness looks equal: in HSL a yellow would vanish on white.
    """
    return f"oklch(var(--l{n // 2 % 2}) {(0.16, 0.1)[n % 2]} {(n * GOLDEN % 1) * 360:.0f})"


def place_labels(
    anchors: Points, widths: Sequence[float], dots: Points, size: tuple[float, float], height: float = 15.0
) -> Points:
    """Find places (N, 2) for the middles of labels near their anchors (N, 2): no overlaps, and few dots covered.

    Tries rings of places around each anchor, in the order of the anchors, and takes the cheapest: covering labels and
    dots costs, and so does distance. Deterministic.
    """
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rings = np.array([(0.0, 0.0)] + [(r * np.cos(a), 0.7 * r * np.sin(a)) for r in range(16, 180, 16) for a in angles])
    done: list[tuple[float, float, float]] = []
    for anchor, w in zip(anchors, widths, strict=True):
        places = anchor + rings
        places[:, 0] = np.clip(places[:, 0], w / 2 + 2, size[0] - w / 2 - 2)
        places[:, 1] = np.clip(places[:, 1], height, size[1] - height)
        cost = np.linalg.norm(places - anchor, axis=1) / 14
        for x, y, other in done:
            over = (np.abs(places[:, 0] - x) < (w + other) / 2 + 4) & (np.abs(places[:, 1] - y) < height)
            cost = cost + over * 1000
        off = np.abs(dots[None] - places[:, None])
        cost = cost + ((off[..., 0] < w / 2 + 2) & (off[..., 1] < height / 2)).sum(1)
        best = int(cost.argmin())
        done.append((float(places[best, 0]), float(places[best, 1]), w))
    return np.array([(x, y) for x, y, _ in done])


def embedding_map(
    places: Points,
    category: Sequence[str],
    pool: NDArray[np.bool_],
    unseen: NDArray[np.bool_],
    titles: Sequence[str],
) -> str:
    """Draw clips as dots at places (N, 2), coloured by category, with each category's name at its densest spot.

    Filled: judged; a ring: support may be drawn from it (pool, (N,)); a diamond: of an unseen category (unseen, (N,)).
    """
    width, height, edge = 960.0, 680.0, 24.0
    low, high = places.min(0), places.max(0)
    at = edge + (places - low) / np.maximum(high - low, 1e-9) * (np.array([width, height]) - 2 * edge)
    names = sorted(set(category))
    number = {name: n for n, name in enumerate(names)}
    rows = np.array([number[c] for c in category])
    out = []
    for n in range(len(names)):
        dots = []
        for i in np.flatnonzero(rows == n).tolist():
            x, y = at[i]
            tag, form = (
                ("path", f'd="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"')
                if unseen[i]
                else ("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="3.4"')
            )
            kind = "ring" if pool[i] else "dot"
            dots.append(f'<{tag} {form} class="{kind}"><title>{escape(titles[i])}</title></{tag}>')
        out.append(f'<g style="color:{colour(n)}">{"".join(dots)}</g>')
    centres = []
    for n in range(len(names)):
        mine = at[rows == n]
        # The clip with the least mean distance to the nearer half of the clips: it is in the densest cluster, whereas
        # the mean of all might be outside of any.
        apart = np.sort(np.linalg.norm(mine[:, None] - mine[None], axis=-1), 1)
        centres.append(mine[apart[:, : len(mine) // 2 + 1].mean(1).argmin()])
    shown = [name if len(name) <= 26 else name[:25] + "…" for name in names]
    middle = place_labels(np.array(centres), [8.6 * len(s) + 6 for s in shown], at, (width, height))
    for n, (x, y) in enumerate(middle):
        cx, cy = centres[n]
        if np.hypot(x - cx, y - cy) > 22:
            out.append(f'<g style="color:{colour(n)}">{line(cx, cy, x, y, "leader")}</g>')
    for n, (x, y) in enumerate(middle):
        out.append(f'<g style="color:{colour(n)}">{text(x, y + 4, shown[n], "name", "middle")}</g>')
    return svg(width, height, "".join(out), f"map of {len(at)} clips in {len(names)} categories", "map")
