"""How far a subscriber has come: on disk after the alerts were dealt with, never before."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.client.cursor import Cursor
from edge.errors import SettingsError
from edge.events import Alert, Status

from .station import Station, hear, subscribe


def test_the_cursor_moves_after_the_loops_body_and_survives(station: Station, tmp_path: Path) -> None:
    at = tmp_path / "cursor"
    with subscribe(station, cursor=at, timeout=10) as s:
        station.joined()
        station.status()
        for _ in range(3):
            station.alert()
        got: list[int] = []
        with pytest.raises(RuntimeError):
            for event in s:
                assert isinstance(event, Alert)
                got.append(event.seq)
                if event.seq == 2:
                    raise RuntimeError("a crash in the middle of number 2")
    station.alert(sent=False)
    with subscribe(station, cursor=at) as s:
        station.joined()
        station.status()
        assert got == [0, 1, 2] and hear(s, 2) == [2, 3]
        s.commit()
    with subscribe(station, cursor=at) as s:
        station.joined()
        station.status()
        station.alert()
        assert hear(s, 1) == [4] and s.missed == 0


def test_a_cursor_knows_where_it_began_before_the_first_alert(station: Station, tmp_path: Path) -> None:
    station.alert(sent=False)
    with subscribe(station, cursor=tmp_path / "c", topics=["alert", "status"]) as s:
        station.joined()
        station.status()
        assert isinstance(s.receive(10), Status)
    station.alert(sent=False)
    with subscribe(station, cursor=tmp_path / "c") as s:
        station.joined()
        station.status()
        assert hear(s, 1) == [1]


def test_a_cursor_of_another_journal_means_that_all_of_this_one_is_new(station: Station, tmp_path: Path) -> None:
    cursor = Cursor(tmp_path / "c")
    cursor.advance("old", 77)
    cursor.close()
    station.alert(sent=False)
    with subscribe(station, cursor=tmp_path / "c") as s:
        station.joined()
        station.status()
        assert hear(s, 1) == [0]
        s.commit()
    assert Cursor(tmp_path / "c").next == {"old": 77, "j1": 1}


def test_a_cursor_file_is_owned_by_one_and_must_be_one(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path / "c")
    with pytest.raises(SettingsError, match="in use"):
        Cursor(tmp_path / "c")
    for n in range(20):
        cursor.advance(f"j{n}", n)
    assert list(cursor.next) == [f"j{n}" for n in range(4, 20)]
    cursor.close()
    for text in (
        "",
        "[]",
        "[" * 100_000,
        '{"v": 2, "next": {}}',
        '{"v": 1, "next": {"a": -1}}',
        '{"v": 1, "next": {"a": "1"}}',
    ):
        (tmp_path / "d").write_text(text)
        with pytest.raises(SettingsError, match="not a cursor file") as e:
            Cursor(tmp_path / "d")
        assert "--since 0" in e.value.fix
