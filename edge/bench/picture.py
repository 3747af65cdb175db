"""Draws a bench report as one SVG picture, without a plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from edge.bench.latency import EDGES_MS

WIDTH, HEIGHT, LEFT, TOP = 420.0, 190.0, 58.0, 30.0
COLOURS = ("#2a6f97", "#c1440e", "#6a994e", "#bc6c25", "#7b2d8e", "#888888", "#333333")
STYLE = "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.g{stroke:#ddd}.b{fill:#2a6f97}.l{stroke:#c1440e}"


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def _frame(title: str, top: float, unit: str) -> list[str]:
    """A panel's title, and its vertical axis from 0 to `top`."""
    out = [_text(LEFT, 16, title, kind="t")]
    for k in range(5):
        y = TOP + HEIGHT * (1 - k / 4)
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>')
        out.append(_text(LEFT - 6, y + 4, f"{top * k / 4:.4g}{unit if k == 4 else ''}", "end"))
    return out


def bars(title: str, names: Sequence[str], values: Sequence[float], unit: str = "") -> str:
    """A panel with one bar per name."""
    top = max(values, default=0) or 1.0
    out, width = _frame(title, top, unit), WIDTH / max(1, len(values))
    for k, (name, value) in enumerate(zip(names, values, strict=True)):
        height = HEIGHT * value / top
        x = LEFT + (k + 0.1) * width
        size = f'width="{0.8 * width:.1f}" height="{height:.1f}"'
        out.append(f'<rect x="{x:.1f}" y="{TOP + HEIGHT - height:.1f}" {size} class="b"/>')
        out.append(_text(x + 0.4 * width, TOP + HEIGHT + 15, name, "middle"))
    return "".join(out)


def lines(title: str, series: dict[str, list[tuple[float, float]]], unit: str = "", limit: float | None = None) -> str:
    """A panel with one line per series of points (x, y), and a horizontal line at the limit."""
    points = [p for found in series.values() for p in found]
    top = max([y for _, y in points] + ([limit] if limit else []), default=1.0) * 1.05 or 1.0
    far = max((x for x, _ in points), default=1.0) or 1.0
    out = _frame(title, top, unit)
    if limit:
        y = TOP + HEIGHT * (1 - limit / top)
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="l" stroke-dasharray="4"/>')
    for k, (name, found) in enumerate(series.items()):
        at = " ".join(f"{LEFT + WIDTH * x / far:.1f},{TOP + HEIGHT * (1 - y / top):.1f}" for x, y in found)
        out.append(f'<polyline points="{at}" fill="none" stroke="{COLOURS[k]}" stroke-width="1.5"/>')
        out.append(
            f'<rect x="{LEFT + 70 * k:.1f}" y="{TOP + HEIGHT + 24}" width="10" height="10" fill="{COLOURS[k]}"/>'
        )
        out.append(_text(LEFT + 14 + 70 * k, TOP + HEIGHT + 33, name))
    out.append(_text(LEFT + WIDTH, TOP + HEIGHT + 15, f"{far:.4g} s", "end"))
    return "".join(out)


def picture(report: dict[str, Any]) -> str:
    """The picture: all panels that the report has figures for, two per row."""
    panels = []
    if (found := report.get("sustained")) and found["score"].get("count"):
        per = [100 * n / found["score"]["count"] for n in found["score"]["histogram"]]
        names = [f"{e:g}" if k % 3 == 0 else "" for k, e in enumerate(EDGES_MS[:-1])]
        panels.append(bars("share of windows by ms after their end", names, per, " %"))
        over = found["over_time"]
        series = {"p50": [(s, a) for s, a, _ in over], "p99": [(s, b) for s, _, b in over]}
        panels.append(lines("latency over time", series, " ms", 60))
    if found := report.get("stages"):
        cost = found["cpu_us_a_person_frame"]
        panels.append(bars("CPU per person-frame by stage", list(cost), list(cost.values()), " µs"))
    if found := report.get("tracks"):
        names = [f"{r['tracks']:g}" for r in found["rows"]]
        panels.append(
            bars(
                "cost of a person-frame, by tracks in view",
                names,
                [r["us_a_person_frame"] for r in found["rows"]],
                " µs",
            )
        )
    if found := report.get("ceiling"):
        panels.append(
            bars("windows a second", ["engine alone", "end to end"], [found["bare_windows_s"], found["windows_s"]])
        )
    if found := report.get("soak"):
        panels.append(lines("memory over capture time", {"MB": found["memory_mb"]}, " MB"))
    if found := report.get("peers"):
        panels.append(bars("windows a second, end to end", list(found), [r["windows_s"] for r in found.values()]))
    wide, high = LEFT + WIDTH + 20, TOP + HEIGHT + 50
    body = "".join(
        f'<g transform="translate({k % 2 * wide:.0f} {k // 2 * high:.0f})">{p}</g>' for k, p in enumerate(panels)
    )
    width, height = 2 * wide, (len(panels) + 1) // 2 * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="haad-edge bench"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )
