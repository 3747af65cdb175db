"""Alerts on disk: numbers that go on, bounds that hold, damage that is met and said."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import SettingsError
from edge.journal.store import Entry, Journal, JournalError


def entry(seq: int, id: str = "a", over: bool = False, size: int = 10, passing: bool = False) -> Entry:
    return Entry(seq, id, over, f"{seq:0{size}d}".encode(), passing)


def held(journal: Journal, since: int = 0) -> list[int]:
    return [seq for seq, _ in journal.read(since, 10**6, 10**9)[0]]


def test_numbers_and_name_go_on_after_a_restart(tmp_path: Path) -> None:
    first = Journal(tmp_path / "deep" / "j.db")
    assert (first.next, held(first)) == (0, [])
    first.append([entry(0), entry(1, "b")])
    first.append([entry(2, over=True)])
    name = first.id
    first.close()
    again = Journal(tmp_path / "deep" / "j.db")
    assert (again.id, again.next, held(again)) == (name, 3, [0, 1, 2])
    assert again.read(1, 1, 10**9) == ([(1, b"0000000001")], 0, 3, 0)
    assert again.standing() == [b"0000000001"]  # what 'a' said last ended it
    again.close()
    assert (tmp_path / "deep" / "j.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700, "alerts are about people"


def test_a_batch_is_cut_by_its_bytes_but_never_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(n, size=100) for n in range(10)])
    assert [s for s, _ in journal.read(0, 10, 250)[0]] == [0, 1, 2]
    assert [s for s, _ in journal.read(0, 10, 200)[0]] == [0, 1]
    assert [s for s, _ in journal.read(9, 10, 1)[0]] == [9]
    journal.close()


def test_a_second_owner_is_refused_with_who_has_it(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from edge.journal.store import Journal; Journal(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "j.db")]
    journal = Journal(tmp_path / "j.db")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"process {__import__('os').getpid()} has it open" in done.stderr and "--journal PATH" in done.stderr
    with pytest.raises(SettingsError, match="in use"):
        Journal(tmp_path / "j.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "j.db")
    with pytest.raises(SettingsError, match="in use"):
        Journal(tmp_path / "link.db")
    journal.close()
    Journal(tmp_path / "j.db").close()


@pytest.mark.parametrize("content", [b"support: s\n", b"x", b"SQLite format 2\0" * 9])
def test_a_file_that_never_was_a_journal_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"not a journal, and not touched.*--journal PATH"):
        Journal(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"whatever this is" * 50, b"\0" * 4096])
def test_a_journal_whose_start_is_damaged_is_set_aside_and_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(content)
    journal = Journal(path)
    journal.append([entry(0)])
    (aside,) = tmp_path.glob("j.db.damaged-*")
    assert aside.read_bytes() == content and str(aside) in journal.note and held(journal) == [0]
    journal.close()


def test_pages_that_were_overwritten_are_found_and_the_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = Journal(path)
    for n in range(0, 2000, 100):
        journal.append([entry(n + i, size=200) for i in range(100)])
    name = journal.id
    journal.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    journal = Journal(path)
    (aside,) = tmp_path.glob("j.db.damaged-*")
    assert str(aside) in journal.note and "number 2000" in journal.note
    journal.append([entry(2000)])
    assert (journal.id, held(journal), journal.read(0, 9, 9)[1:3]) == (name, [2000], (2000, 2001))
    journal.check()
    journal.close()


def test_another_format_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.close()
    with sqlite3.connect(tmp_path / "j.db") as db:
        db.execute("UPDATE meta SET value = 9 WHERE key = 'format'")
    with pytest.raises(JournalError, match="has format 9") as e:
        Journal(tmp_path / "j.db")
    assert not e.value.damaged and "--journal" in e.value.fix
    assert not list(tmp_path.glob("*damaged*"))


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "j.db", Path("/proc/j.db")):
        with pytest.raises(JournalError, match="cannot open") as e:
            Journal(path)
        assert str(path) in str(e.value) and "--journal PATH" in e.value.fix and not e.value.damaged


def test_a_new_file_that_could_not_be_begun_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    """On a full disk the one set aside has company enough: not an empty one for every question of a subscriber."""
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(0)])
    connect, broken = journal._connect, [True]

    def full(mode: str = "rw") -> sqlite3.Connection:
        if broken:
            raise sqlite3.OperationalError("database or disk is full")
        return connect(mode)

    journal._connect = full  # type: ignore[method-assign]
    with pytest.raises(JournalError, match="full"):
        journal.start_new_file()
    assert (tmp_path / "j.db").read_bytes() == b""
    journal._connect = connect  # type: ignore[method-assign]  # reading an empty file takes no space
    with pytest.raises(JournalError) as e:
        held(journal)
    assert not e.value.damaged
    journal.append([entry(1)])
    assert held(journal) == [1] and len([*tmp_path.glob("j.db.damaged-*[0-9]")]) == 1
    journal.close()


def test_a_file_that_is_just_being_begun_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber may ask at any moment, also while a damaged file is being replaced by a new one."""
    journal, transaction, asked = Journal(tmp_path / "j.db"), Journal._transaction, []

    def ask(db: sqlite3.Connection) -> contextlib.AbstractContextManager[None]:
        with pytest.raises(JournalError, match="not open") as e:
            held(journal)
        asked.append(e.value.damaged)
        return transaction(db)

    monkeypatch.setattr(Journal, "_transaction", staticmethod(ask))
    journal.start_new_file()
    assert asked == [False] and held(journal) == []
    journal.close()


@pytest.mark.parametrize("value", [None, 5, "text"])
def test_a_message_that_is_none_stops_neither_the_start_nor_the_replay(tmp_path: Path, value: object) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(0), entry(1, "b"), entry(2, "c")])
    assert journal._db
    journal._db.executescript("DROP TABLE alert; CREATE TABLE alert (seq INTEGER PRIMARY KEY, at, message);")
    journal._db.executescript("DROP TABLE standing; CREATE TABLE standing (id PRIMARY KEY, message);")
    for n, message in enumerate([b"0", value, b"2"]):
        journal._db.execute("INSERT INTO alert VALUES (?, 0, ?)", (n, message))
        journal._db.execute("INSERT INTO standing VALUES (?, ?)", (str(n), message))
    assert (held(journal), journal.standing()) == ([0, 2], [b"0", b"2"])
    journal.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET value = x'00' WHERE key = 'next'",
        "UPDATE meta SET value = 9223372036854775807 WHERE key = 'next'",
        "UPDATE meta SET value = 1e999 WHERE key = 'next'",
        "DELETE FROM meta WHERE key = 'id'; INSERT INTO meta VALUES (x'6964', 1)",
        "INSERT INTO meta VALUES ('thinned', 'x')",
        "UPDATE alert SET at = x'00'",
    ],
)
def test_values_that_were_never_written_are_damage_wherever_they_are_met(tmp_path: Path, damage: str) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(0)])
    assert journal._db
    journal._db.executescript(damage)
    for work in (lambda: journal.append([entry(1)]), lambda: held(journal), journal.tidy):
        try:
            work()
        except JournalError as e:
            assert e.damaged
    journal.close()
    with contextlib.closing(Journal(tmp_path / "j.db")) as again:
        again.append([entry(again.next)])
        assert again.next < 9


def test_a_file_whose_parts_contradict_each_other_is_found_damaged(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        journal.check()
        assert journal._db
        journal._db.execute("INSERT INTO alert VALUES (0, 1, x'00')")
        sql = "UPDATE sqlite_master SET sql = replace(sql, ' NULL,', ' NULL CHECK (at > 5),') WHERE tbl_name='alert'"
        journal._db.executescript(f"PRAGMA writable_schema=ON; {sql}; PRAGMA writable_schema=RESET")
        with pytest.raises(JournalError, match="damaged") as e:
            journal.check()
        assert e.value.damaged


def test_a_negative_number_is_damage(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    assert journal._db
    journal._db.execute("UPDATE meta SET value = -5 WHERE key = 'next'")
    journal.close()
    with contextlib.closing(Journal(tmp_path / "j.db")) as again:
        assert again.next == 0 and "damaged" in again.note


def test_a_full_disk_writes_all_of_a_batch_or_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(0)])
    assert journal._db
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own error of a full disk
    with pytest.raises(JournalError, match="full") as e:
        journal.append([entry(n, size=2000) for n in range(1, 9)])
    assert "free space" in e.value.fix and (held(journal), journal.next, journal.rows) == ([0], 1, 1)
    journal._db.execute("PRAGMA max_page_count=100000")
    journal.append([entry(n, size=2000) for n in range(1, 9)])
    assert held(journal) == list(range(9))
    journal.close()


def test_what_append_returned_from_survives_kill_9(tmp_path: Path) -> None:
    """The writer says each number after its append; then it is killed in the middle of the next ones."""
    code = (
        "import sys; from pathlib import Path; from edge.journal.store import Entry, Journal\n"
        f"j = Journal(Path({str(tmp_path / 'j.db')!r}))\n"
        "while True:\n"
        "    j.append([Entry(j.next, 'a', False, b'x' * 300)]); print(j.next - 1, flush=True)"
    )
    last = -1
    for _ in range(3):
        p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert p.stdout
        for _ in range(40):
            last = int(p.stdout.readline())
        p.kill()
        last = max([last, *(int(x) for x in p.stdout.read().splitlines() if x)])
        p.wait()
        journal = Journal(tmp_path / "j.db")
        assert journal.next >= last + 1 and held(journal) == list(range(journal.next))
        journal.check()
        journal.close()


def test_reading_never_waits_for_the_writer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append([entry(0)])
    assert journal._db
    journal._db.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert held(journal) == [0] and time.monotonic() - began < 1
    journal._db.execute("ROLLBACK")
    journal.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE alert (who TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="another program's"):
        Journal(path)
    assert path.read_bytes() == before and not list(tmp_path.glob("*damaged*"))


def test_a_commit_is_flushed_and_readers_are_not_in_its_way(tmp_path: Path) -> None:
    """What a power cut shows and no test can; see https://sqlite.org/pragma.html#pragma_synchronous."""
    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        assert journal._db
        asked = [journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
        assert asked == [2, "wal"]


def test_what_failed_in_the_middle_leaves_nothing_open(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        with pytest.raises(JournalError, match="NOT NULL"):
            journal.append([entry(0), Entry(1, "b", False, None)])  # type: ignore[arg-type]
        assert (held(journal), journal.next) == ([], 0)
        journal.append([entry(0)])
        assert held(journal) == [0]


def test_a_journal_that_cannot_be_opened_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    with contextlib.closing(Journal(path)) as journal:
        assert journal._db
        journal._db.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    with pytest.raises(JournalError, match="has format 99"):
        Journal(path)
    path.unlink()
    Journal(path).close()


def test_what_was_set_aside_stays_also_when_it_happens_twice_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20270101-000000")
    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        asides = {journal.start_new_file() for _ in range(3)}
    assert len(asides) == 3 and all(Path(p).exists() for p in asides)


def test_a_commit_that_failed_in_its_last_step_and_yet_succeeded_may_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = Journal._transaction

    @contextlib.contextmanager
    def late(db: sqlite3.Connection) -> Iterator[None]:
        with transaction(db):
            yield
        raise sqlite3.OperationalError("disk I/O error")

    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        monkeypatch.setattr(Journal, "_transaction", staticmethod(late))
        with pytest.raises(JournalError, match="disk I/O error"):
            journal.append([entry(0, passing=True)])
        monkeypatch.undo()
        journal.append([entry(0, passing=True), entry(1)])
        assert held(journal) == [0, 1] and (journal.rows, journal.size, journal.next) == (2, 20, 2)


def test_what_is_set_aside_takes_along_what_was_not_yet_moved_into_it(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "j.db")) as journal:
        path = Path(f"{journal.path}-wal")
        journal._shut()
        path.write_bytes(b"what a crash left")
        aside = journal.start_new_file()
        assert Path(f"{aside}-wal").read_bytes() == b"what a crash left"
