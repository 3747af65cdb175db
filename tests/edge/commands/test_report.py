"""What a person reads."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from edge.commands.report import Newest, line, sparkline, support_table
from edge.events import Alert, Provenance, Scores, Status
from edge.support.enrol import SupportSet

BY = Provenance("m", "e", "s")


def alert(kind: str) -> Alert:
    return Alert(
        "id1",
        kind,
        0,
        "r",
        "cam1",
        7,
        0,
        10**9,
        1.25,
        1.5,
        "walk",
        ("l_wrist", "head"),
        "unlike 'walk'",
        BY,  # type: ignore[arg-type]
    )


def test_an_alert_line_says_who_what_how_much_and_where() -> None:
    text = line(alert("new")).plain
    for part in ("NEW", "cam1 person 7", "unlike 'walk'", "1.25", "1.50", "l_wrist, head", "id1"):
        assert part in text
    assert "l_wrist" not in line(alert("end")).plain
    again = replace(alert("new"), like="3f2a9c41d07b5e68")
    assert "; as in 3f2a9c41d07b5e68  [" in line(again).plain
    assert "as in" not in text and "as in" not in line(replace(again, type="end")).plain
    assert "PAUSED cam1" in line(alert("paused")).plain, "what a newer engine may say"


def test_scores_and_status_lines() -> None:
    scores = Scores(0, "r", "cam1", [3, 4], [1, 2], [0.5, 1.75], [0.1, 0.2], ["walk", "run"], BY)
    assert "person 3 0.50 (walk), person 4 1.75 (run)" in line(scores).plain
    hidden = Scores(0, "r", "cam1", [], [], [], [], [], BY, unclear=[9])
    assert line(hidden).plain.split(maxsplit=1) == ["score", "cam1: person 9 not seen well enough"]
    status = Status(0, "r", "degraded", "no device", 5.0, 2, 1, 3, 100, 4, 50, BY)
    text = line(status).plain
    assert "degraded: no device" in text and "4 lost" in text and "3 people" in text and "silent" not in text
    text = line(replace(status, silent=["gate", "hall"], warnings=["stream yard: odd"])).plain
    assert text.splitlines()[0].endswith("; silent: gate, hall") and text.splitlines()[1:] == ["  stream yard: odd"]


def test_the_sparkline_rises_with_the_score_and_is_red_from_the_limit_on() -> None:
    text = sparkline([0.0, 0.5, 0.99, 1.0, 5.0])
    assert list(text.plain) == sorted(text.plain) and text.plain[-1] == "█"
    assert [s.style for s in text.spans] == ["green"] * 3 + ["red"] * 2


def test_the_support_table_names_the_nearest_other_category_and_its_score() -> None:
    e = np.eye(8, dtype=np.float32)
    features = np.stack([np.stack([e[0]] * 8), np.stack([e[1]] * 8), np.stack([(e[0] + e[2]) / np.sqrt(2)] * 8)])
    mask = np.ones((3, 8), np.float32)
    support = SupportSet(("a", "b", "c"), features.astype(np.float32), mask, np.array([0.5, 0.5, 0.5]), (1, 2, 3), "v")
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(support_table(support, 0.05))
    text = console.export_text()
    distance = 1 - 1 / np.sqrt(2)
    assert f"c (score {distance / 0.5:.2f})" in text and f"a (score {distance / 0.5:.2f})" in text


@pytest.mark.parametrize(("width", "shown"), [(10, 10), (48, 48), (80, 48)])
def test_the_newest_scores_are_those_that_stay_where_room_is_short(width: int, shown: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(Newest([0.1] * 40 + [1.9] * 8))
    assert console.export_text().strip("\n") == "▁" * (shown - 8) + "█" * 8
