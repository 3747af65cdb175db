"""Arranges movements on the page of `haad-edge view`: by folder, and alerts that are alike together.

Seen side by side, one decision settles all of these, and a few of them are the clips that the support needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.alerts.alike import alike
from edge.errors import command
from edge.skeleton import Float

SHOTS = 3
"""How many clips of a group are proposed for the support."""


@dataclass(frozen=True, slots=True)
class Row:
    """A movement's card (see `edge.commands.figures.figure`), and what it is arranged by.

    `alert` is the name of its file if it is evidence, else ''; `when` (ns) and `start` (s) are its times; `vector` (D,)
    is the direction of what is abnormal in it, if it was judged and something is.
    """

    card: dict[str, Any]
    start: float
    when: int | None = None
    alert: str = ""
    vector: Float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its heading, the command that would make it normal ('': none), and its cards."""

    name: str
    cards: list[dict[str, Any]]
    command: str = ""


def sections(rows: Mapping[str, Sequence[Row]], near: float, support: Path | None) -> list[Section]:
    """Arrange rows by heading, the folder or recording that they are from; evidence is in order of time.

    Alerts within `near` of each other that are still abnormal come first, with the command that accepts some of them.
    """
    out = []
    for heading, mine in rows.items():
        judged = [r for r in mine if r.alert and r.vector is not None]
        several, together = {r.alert.partition("-")[0] for r in mine if "-" in r.alert}, set[int]()
        for group in alike(np.array([r.vector for r in judged], np.float32), near) if judged else []:
            chosen = [judged[i] for i in group]
            alerts = len({r.alert.partition("-")[0] for r in chosen})
            if alerts > 1:
                # The others of an alert's files may show something else.
                ids = [f"{r.alert}-1" if r.alert in several else r.alert for r in chosen[:SHOTS]]
                options = ["--category", "NAME", "--evidence", heading, "--support", str(support)]
                accept = command("support", "accept", *ids, *options)
                out.append(Section(f"{heading}: {alerts} alerts that are alike", [r.card for r in chosen], accept))
                together |= {id(r) for r in chosen}
        rest = [r for r in mine if id(r) not in together]
        if all(r.when is not None for r in rest):  # evidence is named by alert ids, which have no order
            rest.sort(key=lambda r: (r.when, r.start))
        if rest:
            out.append(Section(f"{heading}: the others" if together else heading, [r.card for r in rest]))
    return out
