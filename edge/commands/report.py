"""Formats events and support sets for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edge.events import Alert, Event, Scores
from edge.grid import SECOND
from edge.ingest.health import named
from edge.score import match
from edge.support.enrol import SupportSet

_COLOURS = {"new": "bold red", "update": "red", "end": "green"}
BLOCKS = " ▁▂▃▄▅▆▇█"


def clock(t: int) -> str:
    """A capture time in ns as local wall-clock time with milliseconds."""
    return datetime.fromtimestamp(t / SECOND).strftime("%H:%M:%S.%f")[:-3]


def line(event: Event, now: int = 0) -> Text:
    """One readable line for an event. A status has no time of its own: it gets `now` (ns), if that is given."""
    if isinstance(event, Alert):
        text = Text(f"{clock(event.end)}  ")
        text.append(f"{event.type.upper():6}", _COLOURS.get(event.type, ""))
        text.append(
            f" {event.stream} person {event.track}: {event.reason}; score {event.score:.2f}, peak {event.peak:.2f}"
        )
        if event.joints and event.type == "new":
            text.append(f"; most unlike: {', '.join(event.joints)}")
        if event.like and event.type == "new":
            text.append(f"; as in {event.like}")
        return text.append(f"  [{event.id}]", "dim")
    if isinstance(event, Scores):
        rows = zip(event.track, event.score, event.category, strict=True)
        people = [f"person {t} {s:.2f} ({c})" for t, s, c in rows]
        people += [f"person {t} not seen well enough" for t in event.unclear]
        when = clock(max(event.end)) if event.end else " " * 12  # no window was scored
        return Text(f"{when}  score  {event.stream}: {', '.join(people)}")
    text = Text(f"{clock(now)}  " if now else "")
    text.append(
        f"status {event.state}{': ' + event.reason if event.reason else ''}; {event.streams} streams, "
        f"{event.tracks} people, "
        f"{event.frames} frames, {event.frames_lost} lost, {event.windows} windows, up {event.seconds:.0f} s"
    )
    if event.silent:
        text.append(f"; silent: {named(event.silent)}", "yellow")
    for warning in event.warnings:
        text.append(f"\n  {warning}", "yellow")
    return text


def sparkline(values: list[float]) -> Text:
    """Scores as a row of blocks from 0 to 2; red at and above 1, the limit of normal."""
    text = Text()
    for v in values:
        i = min(len(BLOCKS) - 1, max(1, round(v / 2 * (len(BLOCKS) - 1))))
        text.append(BLOCKS[i], "red" if v >= 1 else "green")
    return text


@dataclass(frozen=True, slots=True)
class Newest:
    """A sparkline of the newest scores, as many as there is room for."""

    scores: list[float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield sparkline(self.scores[-options.max_width :])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, len(self.scores)))


def support_table(support: SupportSet, temperature: float) -> Table:
    """A table of each category's clips, windows and limit, and the score of its nearest neighbour's windows in it.

    A neighbour well above 1 can be told apart from the category; one below 1 would pass as the category.
    """
    table = Table("category", "clips", "windows", "limit", "nearest other category", title="support")
    rows = [f[m > 0] for f, m in zip(support.features, support.mask, strict=True)]
    for g, name in enumerate(support.names):
        scores = {
            other: float(np.median(match(rows[h], rows[g], temperature)) / support.limit[g])
            for h, other in enumerate(support.names)
            if h != g
        }
        near = min(scores, key=scores.__getitem__) if scores else None
        table.add_row(
            name,
            str(support.shots[g]),
            str(len(rows[g])),
            f"{support.limit[g]:.3f}",
            f"{near} (score {scores[near]:.2f})" if near else "–",
        )
    return table
