"""Alerts that are alike stand together, with the command that makes them normal; everything is shown once."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.clip import save_clip
from edge.commands.sections import Row, sections
from edge.commands.view import view
from edge.grid import SECOND
from edge.motion import make_motion
from edge.skeleton import Float
from tests.edge.commands.test_view import data_of


def directions(*degrees: float) -> Float:
    a = np.deg2rad(degrees)
    return np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32)


def rows() -> list[Row]:
    """Five alerts of two kinds, one of a kind, and one that could not be judged; one alert has two files."""
    names = ["a", "b", "b-2", "c", "d", "e", "f", "g"]
    vectors = directions(0, 1, 2, 90, 3, 91, 180, 0)
    return [
        Row({"title": n}, 0.0, 100 - i, n, None if n == "g" else v)
        for i, (n, v) in enumerate(zip(names, vectors, strict=True))
    ]


def test_alike_come_first_and_the_others_in_order_of_time() -> None:
    found = sections({"ev idence": rows(), "walk": [Row({"title": "0"}, 0.0)]}, 0.01, Path("support"))
    assert [(s.name, [c["title"] for c in s.cards]) for s in found] == [
        ("ev idence: 3 alerts that are alike", ["b", "a", "b-2", "d"]),
        ("ev idence: 2 alerts that are alike", ["c", "e"]),
        ("ev idence: the others", ["g", "f"]),
        ("walk", ["0"]),
    ]
    words = "support accept b-1 a b-2 --category NAME --evidence 'ev idence' --support support"
    assert found[0].command == f"haad-edge {words}" and found[2].command == found[3].command == ""


def test_two_files_of_one_alert_are_no_group_and_what_was_not_judged_is_in_order_of_time() -> None:
    (only,) = sections({"e": rows()[1:3]}, 0.01, Path("support"))
    assert (only.name, only.command, [c["title"] for c in only.cards]) == ("e", "", ["b-2", "b"])
    plain = [replace(r, vector=None) for r in rows()]
    (only,) = sections({"e": plain}, 0.0, None)
    assert [c["title"] for c in only.cards] == [r.alert for r in reversed(plain)]


def test_what_is_no_alert_is_not_grouped_however_alike() -> None:
    first, second, *_ = rows()
    (only,) = sections({"mine": [first, replace(second, alert="", when=None)]}, 2.0, Path("support"))
    assert (only.name, only.command, len(only.cards)) == ("mine", "", 2)


def test_the_command_on_the_page_makes_alerts_that_are_alike_normal(tmp_path: Path) -> None:
    kept, support = tmp_path / "evidence", tmp_path / "support"
    for n in range(2):
        save_clip(support / "walk" / f"{n}.npz", make_motion("walk", seconds=4, seed=n))
    for n, motion in enumerate(["lift_box"] * 4 + ["wave"]):
        name = f"{n:016}"
        said = {"alert": name, "stream": "cam", "track": 1, "from": n * SECOND, "to": 0, "category": "walk"}
        clip = make_motion(motion, seconds=5, seed=50 + n)
        save_clip(kept / f"{name}.npz", replace(clip, source=json.dumps(said)))
    view([kept], support, tmp_path / "page.html")
    first, second = data_of(tmp_path / "page.html")["groups"]
    assert first["name"] == f"{kept}: 4 alerts that are alike" and len(first["clips"]) == 4
    assert second["name"] == f"{kept}: the others" and second["command"] == ""
    _, *words = shlex.split(first["command"].replace("NAME", "lift"))
    subprocess.run([sys.executable, "-m", "edge.cli", *words], check=True, capture_output=True)
    assert len(list((support / "lift").iterdir())) == 3
    view([kept], support, tmp_path / "page.html")
    assert [g["command"] for g in data_of(tmp_path / "page.html")["groups"]] == [""], "nothing is left to accept"
    cards = {c["title"]: c["scores"]["over"] for g in data_of(tmp_path / "page.html")["groups"] for c in g["clips"]}
    assert [cards[f"{n:016}.npz"] for n in range(5)] == [False] * 4 + [True], "the fourth is covered too"
    shutil.copytree(support / "walk", tmp_path / "other" / "walk")
    view([support / "lift"], tmp_path / "other", tmp_path / "page.html")
    (lifts,) = data_of(tmp_path / "page.html")["groups"]
    assert len(lifts["clips"]) == 3 and lifts["command"] == "", "these are a support's clips, not evidence"
