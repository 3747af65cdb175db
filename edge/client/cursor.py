"""How far a subscriber has come, on disk: for each row of numbers, the next one wanted.

It is written after the alerts were dealt with, never before: a crash in between repeats some, and loses none.
"""

from __future__ import annotations

import json
from pathlib import Path

from edge.bundle import replace_file
from edge.errors import SettingsError
from edge.journal.lock import FileLock

ROWS_MOST = 16


class Cursor:
    """`next` by row of numbers, the newest row last. One process at a time."""

    def __init__(self, path: Path | str) -> None:
        """Raises SettingsError when the file is of another make, in use, or cannot be written."""
        self.path = path = Path(path)
        self._read()  # before a lock file is made beside what is no cursor
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path, fix="stop the other one, or give this one a cursor file of its own")
        except OSError as e:
            raise SettingsError(
                f"{path}: cannot be written",
                why=e.strerror or str(e),
                fix="name another file: --cursor FILE, or see that you may write there",
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
                f"{self.path}: no cursor file",
                why=f"{type(e).__name__}: {e}"[:200],
                fix="name another file; if it was one, move it away and begin with --since 0",
            ) from None
        return dict(rows)

    def advance(self, row: str, following: int) -> None:
        """Remember that everything of `row` below `following` is dealt with; on disk when this returns."""
        if self.next.get(row) == following:
            return
        self.next.pop(row, None)
        self.next[row] = following
        self.next = dict(list(self.next.items())[-ROWS_MOST:])
        replace_file(self.path, json.dumps({"v": 1, "next": self.next}).encode() + b"\n")

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()
