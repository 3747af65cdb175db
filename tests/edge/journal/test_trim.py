"""Bounds that hold, and what goes first: the old, then updates, then the oldest."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.journal.store import Entry, Journal
from edge.journal.trim import _PASSING, Bounds

DAY = 86_400 * 10**9
NOW = 1_800_000_000 * 10**9


def entry(seq: int, passing: bool = False, size: int = 10) -> Entry:
    return Entry(seq, "a", False, f"{seq:0{size}d}".encode(), passing)


def held(journal: Journal, since: int = 0) -> list[int]:
    return [seq for seq, _ in journal.read(since, 10**6, 10**9)[0]]


@dataclass
class Row:
    seq: int
    size: int
    at: int
    passing: bool


message = st.tuples(st.integers(1, 30), st.integers(0, 3), st.booleans())


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(st.lists(message, min_size=1, max_size=6), max_size=12),
    st.integers(1, 20),
    st.integers(40, 300),
)
def test_every_bound_holds_and_what_goes_first_is_old_then_passing_then_the_oldest(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int, bool]]], rows: int, size: int
) -> None:
    """Against a list: (size, days passed, passing) of each message, in batches with one time each."""
    now, thinned, seq = [NOW], 0, 0
    journal = Journal(tmp_path_factory.mktemp("j") / "j.db", Bounds(rows, size, days=5.0), now=lambda: now[0])
    model: list[Row] = []

    def much() -> bool:
        return len(model) > rows or sum(r.size for r in model) > size

    for batch in batches:
        now[0] += sum(days for _, days, _ in batch) * DAY
        journal.append([entry(seq + i, passing, n) for i, (n, _, passing) in enumerate(batch)])
        for n, _, passing in batch:
            model.append(Row(seq, max(n, len(str(seq))), now[0], passing))
            seq += 1
        model = [r for r in model if r.at >= now[0] - 5 * DAY]
        newest_half = seq - len(model) // 2
        for r in [r for r in model if r.passing and r.seq < newest_half]:
            if much():
                model.remove(r)
                thinned = r.seq + 1
        while much():
            model.pop(0)
        assert held(journal) == [r.seq for r in model]
        assert (journal.rows, journal.size) == (len(model), sum(r.size for r in model))
        assert journal.read(0, 1, 1)[1:] == (model[0].seq if model else seq, seq, thinned)
    path = journal.path
    journal.close()
    again = Journal(path)
    assert again.next == seq  # also when everything was trimmed
    again.close()


def test_alerts_that_stand_for_hours_leave_the_beginnings_and_ends_of_the_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", Bounds(rows=100))
    for n in range(0, 1000, 20):  # of twenty messages two begin and end an alert
        journal.append([entry(n + i, passing=i >= 2) for i in range(20)])
    numbers, (first, following, thinned) = held(journal), journal.read(0, 1, 1)[1:]
    assert len(numbers) == 100 and (first, following, thinned) == (540, 1000, 940)
    assert numbers == [n for n in range(540, 940) if n % 20 < 2] + list(range(940, 1000)), "the newest half is whole"
    assert journal._db and journal._db.execute("SELECT count(*) FROM passing").fetchone() == (54,), "none of those gone"
    journal.close()


def test_what_never_came_to_disk_is_not_taken_for_what_was_let_go_of(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j.db", Bounds(rows=20))) as journal:
        journal.append([entry(n) for n in range(5)])
        journal.append([entry(n) for n in (8, 9)])
        assert journal.read(0, 1, 1)[1:] == (0, 10, 0), "the hole is seen as it is"
        for n in range(10, 60):
            journal.append([entry(n, passing=True)])
        assert journal.read(0, 1, 1)[1:] == (8, 60, 47) and held(journal)[:7] == [0, 1, 2, 3, 4, 8, 9]
        journal.append([entry(70)])
        assert journal.read(0, 1, 1)[1:] == (8, 71, 48), "another hole, further on, does not hide the first"
        for n in range(71, 140):
            journal.append([entry(n, passing=True)])
        assert journal.read(0, 1, 1)[1:] == (70, 140, 128)
        assert journal._db and journal._db.execute("SELECT seq FROM hole").fetchall() == [(70,)]
        for n in range(140, 170):
            journal.append([entry(n)])
        assert journal._db.execute("SELECT count(*) FROM hole").fetchone() == (0,), "what is trimmed has no holes"


def test_a_full_journal_of_beginnings_and_ends_is_not_searched_at_each_append(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        assert journal._db
        plan = [row[3] for row in journal._db.execute(f"EXPLAIN QUERY PLAN {_PASSING}", (5,))]
    assert plan[0].startswith("SEARCH passing") and plan[1].startswith("SEARCH alert") and len(plan) == 2


def test_a_journal_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(n) for n in range(5)])
    journal.close()
    with sqlite3.connect(tmp_path / "j.db") as db:
        db.executescript("DROP TABLE passing; DROP TABLE hole; INSERT INTO meta VALUES ('hole', 3), ('thinned', 4)")
    db.close()
    journal = Journal(tmp_path / "j.db", Bounds(rows=5))
    assert journal.read(0, 1, 1)[1:] == (3, 5, 4), "the last hole was a value of its own"
    journal.append([entry(5, passing=True)])
    assert held(journal) == [1, 2, 3, 4, 5]
    journal.close()


def test_age_trims_without_a_new_alert_and_not_by_a_clock_that_was_not_set(tmp_path: Path) -> None:
    now = [1000 * DAY // 1000]  # 1970
    journal = Journal(tmp_path / "j.db", Bounds(days=30), now=lambda: now[0])
    journal.append([entry(0)])
    now[0] = NOW
    journal.append([entry(1)])
    assert held(journal) == [0, 1]
    now[0] = NOW + 31 * DAY
    journal.append([entry(2)])
    assert held(journal) == [2]
    journal.close()
    other = Journal(tmp_path / "k.db", Bounds(days=30), now=lambda: now[0])
    other.append([entry(0)])
    now[0] += 31 * DAY
    other.tidy()
    assert held(other) == [] and other.read(0, 9, 9)[1:3] == (1, 1) and other.next == 1
    assert (other.rows, other.size) == (0, 0)
    now[0] = NOW  # the clock was set back: rows keep their order in time
    other.append([entry(1)])
    now[0] = NOW + 32 * DAY
    other.tidy()
    assert held(other) == [1]
    other.close()


def test_age_trims_also_while_no_clock_is_ever_set(tmp_path: Path) -> None:
    now = [DAY]
    with contextlib.closing(Journal(tmp_path / "j.db", Bounds(days=30), now=lambda: now[0])) as journal:
        journal.append([entry(0)])
        now[0] = 20 * DAY
        journal.append([entry(1)])
        now[0] = 40 * DAY
        journal.tidy()
        assert held(journal) == [1]


def test_the_numbers_go_on_where_a_single_message_was_too_much(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j.db", Bounds(bytes=5))) as journal:
        journal.append([entry(0), entry(1)])
        assert held(journal) == []
    with contextlib.closing(Journal(tmp_path / "j.db")) as again:
        assert again.next == 2
