"""Stores alert messages on disk as they are published, by `seq`: bounded in size, consistent after a crash.

engine ── append (one commit, one fsync) ──► journal.db ◄── read ── replay
                                             + -wal, -shm, .lock

`journal` (the id) names one sequence of numbers; `seq` continues in it across restarts. What exceeds a bound is deleted
(trim.py). SQLite runs in WAL mode with synchronous=FULL: once `append` has returned, its messages survive kill -9 and,
if the disk really flushes, a power cut.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import HaadError, SettingsError
from edge.journal.lock import FileLock
from edge.journal.trim import Bounds, trim
from edge.wire import COUNT_LIMIT

FORMAT = 1
APPLICATION = int.from_bytes(b"haad", "big")
"""Marks the file as ours in its header; another program's database is not touched."""
BUSY_S = 5.0
_HEAD = b"SQLite format 3\0"
_WRONG = (sqlite3.Error, TypeError, ValueError, KeyError, OverflowError)
"""What a damaged file raises: errors of SQLite, or of its values, which may be of any type and size."""
_OWNER = "PRAGMA application_id"
_BLOB = "typeof(message) = 'blob'"
"""In a damaged file a message may be anything."""
# `hole` holds each first number on disk after some that never came there; earlier versions kept the last in `meta`.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alert (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS passing (seq INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS hole (seq INTEGER PRIMARY KEY);
INSERT OR IGNORE INTO hole SELECT value FROM meta WHERE key = 'hole';
CREATE TABLE IF NOT EXISTS standing (id TEXT PRIMARY KEY, message BLOB NOT NULL) WITHOUT ROWID;
"""


class JournalError(HaadError):
    """The journal cannot be opened, written or read; `damaged` if the file does not hold what was written."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", damaged: bool = False) -> None:
        self.damaged = damaged
        super().__init__(what, why=why, fix=fix)


def is_another_file(path: Path) -> bool:
    """Whether the path holds a file that was never a journal. All zeros may be what a power cut left of one."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as f:
            head = f.read(len(_HEAD))
    except OSError:
        return False  # opening it as a journal reports why
    return head != _HEAD and any(head)


@dataclass(frozen=True, slots=True)
class Entry:
    """One alert message to write: `message` is the bytes published, `over` whether it ends its alert.

    `passing`: it says only that its alert is still standing.
    """

    seq: int
    id: str
    over: bool
    message: bytes
    passing: bool = False


class Journal:
    """The journal file: one writing thread and any number of reading threads, all of one process."""

    def __init__(self, path: Path, bounds: Bounds = Bounds(), *, now: Callable[[], int] = time.time_ns) -> None:
        """Open or create it. A damaged file is set aside: `note` says so.

        Raises JournalError; SettingsError if another process has it open, or if it is not a journal.
        """
        self.path, self.note, self._bounds, self._now = path, "", bounds, now
        self._reading = threading.Lock()
        self.id, self.next = "", 0
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        if is_another_file(path):  # before any file is created beside it
            raise SettingsError(
                f"journal {path}: not a journal, and not touched",
                why="the file there is not a database",
                fix="name another file: --journal PATH",
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(path, fix="give each engine a journal of its own: --journal PATH, or --journal off")
        except OSError as e:
            raise self._failed("open", e) from None
        try:
            try:
                self._open("", 0)
            except JournalError as e:
                if not e.damaged:
                    raise
                self.note = f"{e}; set aside as {self._set_aside()}, new file started at number {self.next}"
                self._open(self.id, self.next)
        except BaseException:
            self._lock.close()
            raise

    def _failed(self, verb: str, e: Exception) -> JournalError:
        texts = "malformed", "not a database", "no such table", "no such column", "datatype mismatch"
        damaged = not isinstance(e, OSError) and (not isinstance(e, sqlite3.Error) or any(s in str(e) for s in texts))
        fix = "free space on that disk" if "full" in str(e) else "name a writable place: --journal PATH"
        return JournalError(
            f"journal {self.path}: cannot {verb}", why=str(e), fix="" if damaged else fix, damaged=damaged
        )

    def _open(self, id: str, first: int) -> None:
        """Open the file. If there is none, create it with this id ("": a new one) and `first` as its next number."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # for the owner only: alerts are about people
            with contextlib.ExitStack() as stack:
                db = self._connect()
                stack.callback(db.close)
                (tables,), (owner,) = (db.execute(q).fetchone() for q in ("SELECT count(*) FROM sqlite_master", _OWNER))
                if tables and owner != APPLICATION:
                    raise SettingsError(
                        f"journal {self.path}: another program's database", fix="name another file: --journal PATH"
                    )
                if owner != APPLICATION:
                    db.execute(f"{_OWNER}={APPLICATION}")
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute(f"PRAGMA journal_size_limit={4 << 20}")
                with self._transaction(db):
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        db.execute(statement)
                    for key, value in (("format", FORMAT), ("id", id or uuid.uuid4().hex[:12]), ("next", first)):
                        db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
                meta = dict(db.execute("SELECT key, value FROM meta"))
                if meta["format"] != FORMAT:
                    raise JournalError(
                        f"journal {self.path}: has format {meta['format']}",
                        why=f"this version reads and writes format {FORMAT}",
                        fix="move it away, or name another file: --journal PATH",
                    )
                # Id and numbers first: if the rest cannot be read, a new file continues with them.
                (last,) = db.execute("SELECT max(seq) FROM alert").fetchone()
                following = max(int(meta["next"]), -1 if last is None else last + 1)
                if not 0 <= following < COUNT_LIMIT:
                    raise ValueError(f"its next number is {following}")
                self.id, self.next = str(meta["id"]), following
                count, size, at = db.execute(
                    "SELECT count(*), coalesce(sum(length(message)), 0), max(at) FROM alert"
                ).fetchone()
                self.rows, self.size, self._at = int(count), int(size), int(at or 0)
                stack.pop_all()
        except (*_WRONG, OSError) as e:
            raise self._failed("open", e) from None
        self._db = db  # only now may others read

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )

    @staticmethod
    @contextlib.contextmanager
    def _transaction(db: sqlite3.Connection) -> Iterator[None]:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def check(self) -> None:
        """Read every page of the file. Raises JournalError if any of it is damaged."""
        assert self._db
        try:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as e:
            raise self._failed("read", e) from None
        if found != "ok":
            raise JournalError(f"journal {self.path}: damaged", why=str(found)[:200], damaged=True)

    def append(self, entries: Sequence[Entry]) -> None:
        """Commit messages, in order of `seq`, from `next` on: all or none. Raises JournalError."""
        if not entries:
            return
        if self._db is not None and not self.path.exists():  # SQLite would keep writing to the deleted file
            raise JournalError(f"journal {self.path}: moved or deleted while it was in use", damaged=True)
        # Never backwards: what is written before a wrong clock is set right must not look ancient afterwards.
        at = max(self._now(), self._at)
        try:
            if self._db is None:
                self._open(self.id, self.next)
            db = self._db
            assert db
            with self._transaction(db):
                # REPLACE: a commit that failed in its last step may have succeeded nevertheless.
                fresh = [(e.seq, at, e.message) for e in entries]
                db.executemany("INSERT OR REPLACE INTO alert VALUES (?, ?, ?)", fresh)
                passing = [(e.seq,) for e in entries if e.passing]
                db.executemany("INSERT OR REPLACE INTO passing VALUES (?)", passing)
                for e in entries:
                    if e.over:
                        db.execute("DELETE FROM standing WHERE id = ?", (e.id,))
                    else:
                        db.execute("INSERT OR REPLACE INTO standing VALUES (?, ?)", (e.id, e.message))
                expected = [self.next, *(e.seq + 1 for e in entries)]
                holes = [(e.seq,) for e, n in zip(entries, expected, strict=False) if e.seq > n]
                db.executemany("INSERT OR REPLACE INTO hole VALUES (?)", holes)
                rows, size = self.rows + len(entries), self.size + sum(len(e.message) for e in entries)
                rows, size = trim(db, self._bounds, rows, size, at, entries[-1].seq + 1)
        except _WRONG as e:
            raise self._failed("write", e) from None
        self.rows, self.size, self._at, self.next = rows, size, at, entries[-1].seq + 1

    def tidy(self) -> None:
        """Delete what has become too old while nothing was appended. Raises JournalError."""
        at = max(self._now(), self._at)
        try:
            if self._db is None:
                self._open(self.id, self.next)
            assert self._db
            with self._transaction(self._db):
                rows, size = trim(self._db, self._bounds, self.rows, self.size, at, self.next)
        except _WRONG as e:
            raise self._failed("write", e) from None
        self.rows, self.size = rows, size

    def standing(self) -> list[bytes]:
        """The newest message of each alert that was raised and has not ended. Raises JournalError."""
        assert self._db
        try:
            return [m for (m,) in self._db.execute(f"SELECT message FROM standing WHERE {_BLOB} ORDER BY id")]
        except sqlite3.Error as e:
            raise self._failed("read", e) from None

    def read(self, since: int, count: int, size: int) -> tuple[list[tuple[int, bytes]], int, int, int]:
        """The messages from `since` on: at most `count`, and about `size` bytes. Raises JournalError.

        Returns ([(seq, message), …], first, next, thinned): the first and the next `seq` on disk, and the `seq` below
        which passing messages may have been deleted. For threads other than the writer; it never waits for the writer.
        """
        found: list[tuple[int, bytes]] = []
        with self._reading:
            if self._db is None:  # the path may hold half a file, which must not pass for damage
                raise JournalError(f"journal {self.path}: not open")
            try:
                if self._reader is None:
                    self._reader = self._connect("ro")
                self._reader.execute("BEGIN")
                try:
                    # Two queries: SQLite answers min and max from the index only when each is asked for alone.
                    (low,) = self._reader.execute("SELECT min(seq) FROM alert").fetchone()
                    (high,) = self._reader.execute("SELECT max(seq) FROM alert").fetchone()
                    meta = dict(self._reader.execute("SELECT key, value FROM meta"))
                    following = max(int(meta["next"]), -1 if high is None else high + 1)
                    thinned = int(meta.get("thinned", 0))
                    (hole,) = self._reader.execute("SELECT max(seq) FROM hole WHERE seq < ?", (thinned,)).fetchone()
                    rows = self._reader.execute(
                        f"SELECT seq, message FROM alert WHERE seq >= ? AND {_BLOB} ORDER BY seq LIMIT ?",
                        (since, count),
                    )
                    for seq, message in rows:
                        found.append((seq, message))
                        size -= len(message)
                        if size <= 0:
                            break
                finally:
                    self._reader.execute("ROLLBACK")
            except _WRONG as e:
                raise self._failed("read", e) from None
        first = following if low is None else low
        # Numbers that never reached the disk must not pass for deleted updates: `first` then lies behind all of them.
        return found, max(first, hole or 0), following, thinned

    def start_new_file(self) -> str:
        """Set a damaged file aside and continue in a new one with the same id and numbers. Returns where the old is."""
        self._shut()
        aside = self._set_aside()
        self._open(self.id, self.next)
        return aside

    def _set_aside(self) -> str:
        first = name = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        for n in itertools.count(2):
            if not Path(name).exists():
                break
            name = f"{first}-{n}"
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{end}").rename(f"{name}{end}")
        return name

    def _shut(self) -> None:
        with self._reading, contextlib.suppress(sqlite3.Error):
            if self._reader:
                self._reader.close()
            self._reader = None
        with contextlib.suppress(sqlite3.Error):
            if self._db:
                self._db.close()
        self._db = None

    def close(self) -> None:
        """Close the file and release its lock."""
        self._shut()
        self._lock.close()
