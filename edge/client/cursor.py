"""Remembers on disk how far a subscriber has come: for each row of alert numbers, the next one wanted.

A row is the numbering of one journal. The cursor is written after alerts were dealt with, never before: a crash in
between repeats some, and loses none.
"""

from __future__ import annotations

import json
from pathlib import Path

from edge.bundle import replace_file
from edge.errors import SettingsError
from edge.journal.lock import FileLock

ROWS_MOST = 16


class Cursor:
    """The file: `next` by row, the most recently advanced row last. One process at a time."""

    def __init__(self, path: Path | str) -> None:
        """Raises SettingsError if the file is not a cursor file, is in use, or cannot be written."""
        self.path = path = Path(path)
        self._read()  # before a lock file is created beside a file that is not a cursor
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path, fix="stop that process, or give this one a cursor file of its own")
        except OSError as e:
            raise SettingsError(
                f"{path}: cannot be written",
                why=e.strerror or str(e),
                fix="name another file: --cursor FILE, or get write permission there",
            ) from None
        try:
            self.next = self._read()
        except BaseException:
            self._lock.close()
            raise

    def _read(self) -> dict[str, int]:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise SettingsError(
                f"{self.path}: cannot be read", why=e.strerror or str(e), fix="name another file: --cursor FILE"
            ) from None
        try:
            m = json.loads(text)
            rows = m["next"]
            if m["v"] != 1 or not all(type(k) is str and type(n) is int and n >= 0 for k, n in rows.items()):
                raise ValueError("not of version 1")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise SettingsError(
                f"{self.path}: not a cursor file",
                why=f"{type(e).__name__}: {e}"[:200],
                fix="name another file; if it is a damaged cursor, move it away and use --since 0",
            ) from None
        return dict(rows)

    def advance(self, row: str, following: int) -> None:
        """Record that everything of `row` below `following` is dealt with; on disk when this returns."""
        if self.next.get(row) == following:
            return
        self.next.pop(row, None)
        self.next[row] = following
        self.next = dict(list(self.next.items())[-ROWS_MOST:])
        replace_file(self.path, json.dumps({"v": 1, "next": self.next}).encode() + b"\n")

    def close(self) -> None:
        """Release the file for other processes."""
        self._lock.close()
