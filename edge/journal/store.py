"""Alerts on disk: the messages as they are published, by `seq`, bounded, whole after a crash.

engine ── append (one commit, one fsync) ──► journal.db ◄── read ── replay
                                             + -wal, -shm, .lock

`journal` names the row of numbers; `seq` goes on in it over restarts. What exceeds a bound goes (trim.py). SQLite in
WAL mode with synchronous=FULL: what `append` has returned from survives kill -9 and, if the disk keeps its word about
flushes, a power cut.
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

FORMAT = 1
APPLICATION = int.from_bytes(b"haad", "big")
"""Marks the file as ours in its header; another program's database is left alone."""
BUSY_S = 5.0
_HEAD = b"SQLite format 3\0"
_OWNER = "PRAGMA application_id"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alert (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS passing (seq INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS standing (id TEXT PRIMARY KEY, message BLOB NOT NULL) WITHOUT ROWID;
"""


class JournalError(HaadError):
    """The journal cannot be opened, written or read; `damaged` when what is in the file is not what was written."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", damaged: bool = False) -> None:
        self.damaged = damaged
        super().__init__(what, why=why, fix=fix)


def is_another_file(path: Path) -> bool:
    """Whether something stands there that no journal can have become: zeros are what a power cut may leave of one."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as f:
            head = f.read(len(_HEAD))
    except OSError:
        return False  # opening it as a journal says why
    return head != _HEAD and any(head)


@dataclass(frozen=True, slots=True)
class Entry:
    """One alert message on its way to disk: `message` is what is published, `over` whether it ends its alert.

    `passing`: it says only that its alert still stands.
    """

    seq: int
    id: str
    over: bool
    message: bytes
    passing: bool = False


class Journal:
    """One writer thread and any number of reading threads of one process; another process is refused."""

    def __init__(self, path: Path, bounds: Bounds = Bounds(), *, now: Callable[[], int] = time.time_ns) -> None:
        """Open or make it; a damaged file is set aside, see `note`. Raises JournalError; SettingsError if in use."""
        self.path, self.note, self._bounds, self._now = path, "", bounds, now
        self._reading = threading.Lock()
        self.id, self.next = "", 0
        if is_another_file(path):  # before anything is made beside it
            raise SettingsError(
                f"journal {path}: is no journal, and is left as it is",
                why="what is there never was a database",
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
                self.note = f"{e}; set aside as {self._set_aside()}, and a new file begun at number {self.next}"
                self._open(self.id, self.next)
        except BaseException:
            self._lock.close()
            raise

    def _failed(self, verb: str, e: Exception) -> JournalError:
        damaged = isinstance(e, sqlite3.Error) and any(
            s in str(e) for s in ("malformed", "not a database", "no such table", "no such column", "datatype mismatch")
        )
        fix = "free space on that disk" if "full" in str(e) else "name a place that can be written: --journal PATH"
        return JournalError(
            f"journal {self.path}: cannot {verb}", why=str(e), fix="" if damaged else fix, damaged=damaged
        )

    def _open(self, id: str, first: int) -> None:
        """Open the file; where there is none, begin one named `id` ("": a new name) whose next number is `first`."""
        self._db: sqlite3.Connection | None = None
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # alerts are about people: for the owner only
            self._db = db = self._connect()
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
                    f"journal {self.path}: of format {meta['format']}",
                    why=f"this program writes {FORMAT}",
                    fix="move it away, or name another: --journal PATH",
                )
            # The name and the numbers first: they go on in a new file if the rest cannot be read.
            (last,) = db.execute("SELECT max(seq) FROM alert").fetchone()
            self.next = max(int(meta["next"]), -1 if last is None else last + 1)
            self.id = str(meta["id"])
            count, size, at = db.execute(
                "SELECT count(*), coalesce(sum(length(message)), 0), max(at) FROM alert"
            ).fetchone()
            self.rows, self.size, self._at = int(count), int(size), int(at or 0)
        except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as e:
            self._shut()
            raise self._failed("open", e) from None
        except BaseException:
            self._shut()
            raise
        self._reader: sqlite3.Connection | None = None

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
        """Read every page. Raises JournalError when something in the file is not what was written."""
        assert self._db
        try:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as e:
            raise self._failed("read", e) from None
        if found != "ok":
            raise JournalError(f"journal {self.path}: damaged", why=str(found)[:200], damaged=True)

    def append(self, entries: Sequence[Entry]) -> None:
        """Commit messages whose `seq` are `next` and above, in order. All or none. Raises JournalError."""
        if not entries:
            return
        if self._db is not None and not self.path.exists():  # SQLite would write on, where nobody finds it
            raise JournalError(f"journal {self.path}: taken away while it was in use", damaged=True)
        # Never back: a clock that is set right after the start does not make what was written before look ancient.
        at = max(self._now(), self._at)
        try:
            if self._db is None:
                self._open(self.id, self.next)
            db = self._db
            assert db
            with self._transaction(db):
                # REPLACE: a commit that failed in its last step may have happened all the same.
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
                for hole in (e.seq for e, n in zip(entries, expected, strict=False) if e.seq > n):
                    db.execute("INSERT OR REPLACE INTO meta VALUES ('hole', ?)", (hole,))
                rows, size = self.rows + len(entries), self.size + sum(len(e.message) for e in entries)
                rows, size = trim(db, self._bounds, rows, size, at, entries[-1].seq + 1)
        except sqlite3.Error as e:
            raise self._failed("write", e) from None
        self.rows, self.size, self._at, self.next = rows, size, at, entries[-1].seq + 1

    def tidy(self) -> None:
        """Trim what has grown too old while nothing was appended. Raises JournalError."""
        at = max(self._now(), self._at)
        try:
            if self._db is None:
                self._open(self.id, self.next)
            assert self._db
            with self._transaction(self._db):
                rows, size = trim(self._db, self._bounds, self.rows, self.size, at, self.next)
        except sqlite3.Error as e:
            raise self._failed("write", e) from None
        self.rows, self.size = rows, size

    def standing(self) -> list[bytes]:
        """The newest message of each alert that was raised and never ended. Raises JournalError."""
        assert self._db
        try:
            return [bytes(m) for (m,) in self._db.execute("SELECT message FROM standing ORDER BY id")]
        except sqlite3.Error as e:
            raise self._failed("read", e) from None

    def read(self, since: int, count: int, size: int) -> tuple[list[tuple[int, bytes]], int, int, int]:
        """(seq, message) from `since` on, at most `count` and about `size` bytes; the first and the next `seq` on disk.

        And the one below which passing messages may have been let go of. For other threads than the writer's; it never
        waits for the writer. Raises JournalError.
        """
        found: list[tuple[int, bytes]] = []
        with self._reading:
            if self._db is None:  # what may lie there is half a file: not to be taken for a damaged one
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
                    rows = self._reader.execute(
                        "SELECT seq, message FROM alert WHERE seq >= ? ORDER BY seq LIMIT ?", (since, count)
                    )
                    for seq, message in rows:
                        found.append((seq, message))
                        size -= len(message)
                        if size <= 0:
                            break
                finally:
                    self._reader.execute("ROLLBACK")
            except sqlite3.Error as e:
                raise self._failed("read", e) from None
        first, thinned, hole = following if low is None else low, int(meta.get("thinned", 0)), int(meta.get("hole", 0))
        # What never came to disk is no update that was let go of: below the last such hole nothing is said to be whole.
        return found, max(first, hole) if hole < thinned else first, following, thinned

    def begin_anew(self) -> str:
        """Set a damaged file aside and go on in a new one under the same name and numbers. Returns where the old is."""
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
            if getattr(self, "_reader", None):
                self._reader.close()  # type: ignore[union-attr]
            self._reader = None
        with contextlib.suppress(sqlite3.Error):
            if self._db:
                self._db.close()
        self._db = None

    def close(self) -> None:
        """Close the file and let another process have it."""
        self._shut()
        self._lock.close()
