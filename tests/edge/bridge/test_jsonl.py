"""Alerts into a file of lines: each once, whole, and nothing of another's."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bridge.core import Unavailable
from edge.bridge.jsonl import JsonLines
from edge.errors import SettingsError

from .test_core import ALERT, alerts


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def test_a_file_goes_on_where_it_was_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = JsonLines(path)
    assert first.deliver(alerts(3)) == 3
    again = JsonLines(path)  # killed before the cursor moved: the same alerts come again
    assert again.deliver(alerts(5)) == 5 and numbers(path) == [0, 1, 2, 3, 4]
    other = [replace(ALERT, seq=1, journal="k"), replace(ALERT, seq=2, id="another")]
    assert JsonLines(path).deliver(other) == 2 and len(numbers(path)) == 7
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_cut_off_by_a_power_cut_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    JsonLines(path).deliver(alerts(2))
    path.write_bytes(path.read_bytes()[:-9])
    JsonLines(path).deliver(alerts(2))
    assert numbers(path) == [0, 1]


def test_the_very_first_line_may_be_cut_off_and_a_copy_of_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    JsonLines(path).deliver(alerts(1))
    line = path.read_bytes()
    for cut in (1, 5, 20, len(line) - 2):
        path.write_bytes(line[:cut])
        JsonLines(path).deliver(alerts(1))
        assert path.read_bytes() == line
        assert (tmp_path / "a.jsonl.unfinished").read_bytes().splitlines()[-1] == line[:cut]
    path.write_bytes(line[:-1])  # whole, but for its end: nothing to be taken away
    JsonLines(path).deliver(alerts(2))
    assert numbers(path) == [0, 1]


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.bridge.jsonl.TAIL", 1000)
    path = tmp_path / "a.jsonl"
    JsonLines(path).deliver(alerts(20))
    again = JsonLines(path)
    assert 0 < len(again._there) < 5
    again.deliver(alerts(21)[18:])
    assert numbers(path) == list(range(21))


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)
    lines.deliver(alerts(1))
    path.rename(tmp_path / "b.jsonl")
    lines.deliver(alerts(2)[1:])
    assert numbers(path) == [1] and numbers(tmp_path / "b.jsonl") == [0]


FOREIGN = [
    b"milk\neggs\n",
    b'{"a": 1}\n',
    b"x" * 50,
    b"milk\neggs",
    b'{"config": {"a": 1}}',
    b'{\n  "a": 1\n}',
    b'{"a": 1}\n{"id":"',
    b'{"id":"me","name":"x"}',
    b"\0" * 9,
    b'{"id":[],"journal":"","run":[],"seq":0}\n',
    b"[" * 100_000,
    b"x" * 2000 + b"\n",
    b"x" * 2000,
    b"x" * 2000 + b'\n{"id":"',
]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_file_that_holds_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.setattr("edge.bridge.jsonl.TAIL", 1000)
    path = tmp_path / "notes.txt"
    path.write_bytes(text)
    with pytest.raises(SettingsError, match=r"not an alert|no lines of JSON"):
        JsonLines(path)
    assert path.read_bytes() == text and list(tmp_path.iterdir()) == [path]


def test_a_file_with_a_foreign_line_before_an_unfinished_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    JsonLines(path).deliver(alerts(1))
    text = path.read_bytes() + b"milk\n" + path.read_bytes()[:30]
    path.write_bytes(text)
    with pytest.raises(SettingsError, match="not an alert"):
        JsonLines(path)
    assert path.read_bytes() == text


def test_a_file_that_cannot_be_written_is_said() -> None:
    with pytest.raises(SettingsError, match="cannot be written"):
        JsonLines(Path("/proc/nothing/a.jsonl"))


def test_a_full_disk_is_waited_for_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = JsonLines(tmp_path / "a.jsonl")
    lines.deliver(alerts(1))
    real, calls = os.write, iter(range(9))

    def write(fd: int, data: bytes) -> int:
        if next(calls):
            raise OSError(28, "No space left on device")
        return real(fd, data[:20])

    with monkeypatch.context() as m, pytest.raises(Unavailable, match="No space left"):
        m.setattr("edge.bridge.core.os.write", write)
        lines.deliver(alerts(3)[1:])
    assert numbers(tmp_path / "a.jsonl") == [0]
    lines.deliver(alerts(3)[1:])
    assert numbers(tmp_path / "a.jsonl") == [0, 1, 2]
