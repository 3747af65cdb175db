"""Presents the figures of a streaming evaluation: as tables at the terminal, as JSON, and as a page with curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from edge.outputs import save_text
from trainer import figures
from trainer.report import STYLE, breakable, keys
from trainer.streaming.measure import DEFAULT, FLOOR, OURS, Outcome, Point, at_rate, curve

TARGET = 6.0
"""The floor is compared at this many false alarms per camera-hour; the model at its own default threshold."""


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of some outcomes at one threshold. `auroc` is by frames in hindsight, `auroc_at_once` as they come."""

    name: str
    auroc: float
    auroc_at_once: float
    recall: float
    recall_short: float
    delay: float
    false_alarms: float
    hours: float


@dataclass(frozen=True, slots=True)
class Streaming:
    """Everything measured. `main` is the number of shots in the rows by category and by person."""

    main: int
    by_shots: dict[int, Row]
    by_category: list[Row]
    by_person: list[Row]
    floor: Row | None
    curves: dict[str, list[Point]]
    missed: list[tuple[str, str, float, int]]
    """The worst pairs: the normal category, the anomaly's, the share found, how many there were."""


def summarise(outcomes: Sequence[Outcome]) -> Streaming:
    """Summarise outcomes: the model's at the default threshold, the floor's at TARGET false alarms an hour or fewer."""
    ours = [o for o in outcomes if o.method == OURS]
    shots = sorted({o.shots for o in ours})
    main = 3 if 3 in shots else shots[0]
    mine = [o for o in ours if o.shots == main]
    theirs = [o for o in outcomes if o.method == FLOOR and o.shots == main]
    curves = {OURS: curve(mine)} | ({FLOOR: curve(theirs)} if theirs else {})
    return Streaming(
        main,
        {k: _row(f"{k} clips", [o for o in ours if o.shots == k]) for k in shots},
        [_row(n, [o for o in mine if o.normal == n]) for n in sorted({o.normal for o in mine})],
        [_row(n, [o for o in mine if o.person == n]) for n in sorted({o.person for o in mine})],
        _row(FLOOR, theirs, at_rate(curves[FLOOR], TARGET)) if theirs else None,
        curves,
        _missed(mine),
    )


def _row(name: str, some: Sequence[Outcome], point: Point | None = None) -> Row:
    p = point or curve(some)[DEFAULT]
    by_category = {n: [o for o in some if o.normal == n] for n in {o.normal for o in some}}
    # Every category counts the same, however many people perform it.
    frames = [np.mean([o.auroc for o in v]) for v in by_category.values()]
    at_once = [np.mean([o.auroc_at_once for o in v]) for v in by_category.values()]
    hours = sum(o.hours for o in some)
    return Row(
        name, float(np.mean(frames)), float(np.mean(at_once)), p.recall, p.recall_short, p.delay, p.false_alarms, hours
    )


def _missed(some: Sequence[Outcome], most: int = 12) -> list[tuple[str, str, float, int]]:
    found: dict[tuple[str, str], list[bool]] = {}
    for o in some:
        for name, delay in zip(o.category, o.delay[DEFAULT], strict=True):
            found.setdefault((o.normal, name), []).append(bool(np.isfinite(delay)))
    pairs = [(a, b, float(np.mean(v)), len(v)) for (a, b), v in found.items()]
    return sorted((p for p in pairs if p[2] < 1), key=lambda p: p[2])[:most]


def as_json(found: Streaming) -> dict[str, Any]:
    """Plain values for a JSON file; figures that are not finite become null."""
    plain: dict[str, Any] = _plain(asdict(found))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value


HEAD = ("frame AUROC", "at once", "found ≥ 1.5 s", "shorter", "median delay", "false alarms/h")


def cells(r: Row) -> list[str]:
    """A row's figures as text, in the order of HEAD."""
    delay = f"{r.delay:.2f} s" if np.isfinite(r.delay) else "–"
    short = f"{r.recall_short:.1%}" if np.isfinite(r.recall_short) else "–"
    return [f"{r.auroc:.4f}", f"{r.auroc_at_once:.4f}", f"{r.recall:.1%}", short, delay, f"{r.false_alarms:.1f}"]


def tables(found: Streaming, title: str) -> list[Table]:
    """Two tables for a terminal: by number of clips, with the floor; and by category and person."""
    first = Table("", *HEAD, title=title)
    for r in found.by_shots.values():
        first.add_row(r.name, *cells(r))
    if found.floor:
        first.add_section()
        first.add_row(f"{found.floor.name}, {found.main} clips, at its own threshold", *cells(found.floor))
    second = Table("normal category", *HEAD, title=f"{found.main} clips, default threshold")
    for r in found.by_category:
        second.add_row(r.name, *cells(r))
    second.add_section()
    for r in found.by_person:
        second.add_row(f"person {r.name}", *cells(r))
    return [first, second]


def markdown(found: Streaming) -> str:
    """The same tables for a results file."""

    def table(first: str, rows: Sequence[tuple[str, Row]]) -> str:
        head = f"| {first} | {' | '.join(HEAD)} |\n|{'---|' * (len(HEAD) + 1)}\n"
        return head + "".join(f"| {name} | {' | '.join(cells(r))} |\n" for name, r in rows)

    rows = [(r.name, r) for r in found.by_shots.values()]
    if found.floor:
        rows.append((f"{found.floor.name}, {found.main} clips, at {TARGET:g} false alarms/h or fewer", found.floor))
    points = "".join(
        f"| {name} | {p.threshold:.2f} | {p.false_alarms:.1f} | {p.recall:.1%} | {p.recall_short:.1%} | "
        f"{f'{p.delay:.2f} s' if np.isfinite(p.delay) else '–'} |\n"
        for name, points in found.curves.items()
        for p in points
    )
    missed = "".join(f"| {a} | {b} | {share:.0%} of {n} |\n" for a, b, share, n in found.missed)
    return (
        table("support", rows)
        + f"\nBy category, {found.main} clips, default threshold:\n\n"
        + table("normal", [(r.name, r) for r in found.by_category])
        + "\nBy person:\n\n"
        + table("person", [(r.name, r) for r in found.by_person])
        + "\nThe curves, thresholds as multiples of the default:\n\n"
        + "| | threshold | false alarms/h | found ≥ 1.5 s | shorter | median delay |\n|---|---|---|---|---|---|\n"
        + points
        + "\nFound least:\n\n| normal | anomaly | found |\n|---|---|---|\n"
        + missed
    )


def write_page(folder: Path, found: Streaming, *, title: str, about: str, note: str) -> Path:
    """Write `folder/streaming.html`: the figures in words, the curves, every category. Returns its path."""
    main = found.by_shots[found.main]
    tiles = [
        (
            f"{main.recall:.1%}",
            f"of the anomalies of 1.5 s or more were reported with {found.main} clips of each action",
        ),
        (f"{main.delay:.2f} s", "median delay after the onset"),
        (
            f"{main.false_alarms:.1f} an hour",
            f"false alarms of a camera with normal activity, in {main.hours:.1f} hours",
        ),
        (f"{main.auroc:.4f}", "frame AUROC, mean over categories"),
    ]
    cards = "".join(f'<div class="tile"><b>{big}</b>{escape(small)}</div>' for big, small in tiles)

    def table(first: str, rows: Sequence[Row]) -> str:
        head = "".join(f"<th>{escape(h)}</th>" for h in (first, *HEAD))
        body = "".join(
            f"<tr><td>{breakable(r.name)}</td>{''.join(f'<td>{escape(c)}</td>' for c in cells(r))}</tr>" for r in rows
        )
        return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'

    shots = [*found.by_shots.values(), *([found.floor] if found.floor else [])]
    missed = "".join(
        f"<tr><td>{breakable(a)}</td><td>{breakable(b)}</td><td>{share:.0%} of {n}</td></tr>"
        for a, b, share, n in found.missed
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>"
        f"<p>{escape(about)}</p>"
        + (f'<p class="warn"><b>Read with care:</b> {escape(note)}</p>' if note else "")
        + f'<div class="tiles">{cards}</div>'
        + "<h2>How many clips</h2>"
        + table("support", shots)
        + "<h2>What a threshold buys</h2><p>Each point is a threshold; the ring is the default.</p>"
        + keys(list(found.curves))
        + '<div class="two">'
        + f"<figure>{curve_picture(found.curves, 'recall')}<figcaption>Anomalies of 1.5 s or more that were reported"
        "</figcaption></figure>"
        + f"<figure>{curve_picture(found.curves, 'delay')}<figcaption>Median delay after the onset, seconds"
        "</figcaption></figure></div>"
        + "<h2>Each normal action</h2>"
        + table("category", sorted(found.by_category, key=lambda r: r.recall))
        + "<h2>Each person</h2>"
        + table("person", found.by_person)
        + "<h2>Found least</h2>"
        + f'<div class="wide"><table><tr><th>normal</th><th>anomaly</th><th>found</th></tr>{missed}</table></div>'
        + "\n</body></html>\n"
    )
    out = folder / "streaming.html"
    save_text(out, page)
    return out


RATES = (0.5, 1, 2, 5, 10, 20, 50, 100)


def curve_picture(curves: dict[str, list[Point]], what: str) -> str:
    """Plot `recall` or `delay` against false alarms per hour, on a logarithmic axis from 0.5 to 100."""
    left, top, width, height = 38.0, 10.0, 300.0, 220.0
    most = 1.0 if what == "recall" else 3.0

    def place(p: Point) -> tuple[float, float]:
        x = np.log(np.clip(p.false_alarms, RATES[0], RATES[-1]) / RATES[0]) / np.log(RATES[-1] / RATES[0])
        y = min(p.recall if what == "recall" else p.delay, most) / most
        return left + width * float(x), top + height * (1 - y)

    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" class="frame"/>']
    for rate in RATES:
        x = left + width * float(np.log(rate / RATES[0]) / np.log(RATES[-1] / RATES[0]))
        parts += [figures.line(x, top, x, top + height, "grid")]
        parts += [figures.text(x, top + height + 15, f"{rate:g}", "small", "middle")]
    for k in range(5):
        y = top + height * (1 - k / 4)
        value = f"{k / 4:.0%}" if what == "recall" else f"{most * k / 4:g}"
        parts += [figures.line(left, y, left + width, y, "grid"), figures.text(left - 5, y + 4, value, "small", "end")]
    parts.append(figures.text(left + width / 2, top + height + 31, "false alarms per camera-hour", "small", "middle"))
    for n, (name, points) in enumerate(curves.items()):
        first = int(np.argmax([p.false_alarms for p in points]))
        falling = [p for p in points[first:] if np.isfinite(p.delay) or what == "recall"]
        if falling:
            parts.append(figures.path(np.array([place(p) for p in falling]), f"curve c{n}"))
        if name == OURS and points[DEFAULT] in falling:
            x, y = place(points[DEFAULT])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="ring c{n}"/>')
    label = f"{'share found' if what == 'recall' else 'median delay'} by false alarms per hour"
    return figures.svg(left + width + 12, top + height + 38, "".join(parts), label)
