"""Appends alerts to a file as lines of JSON, on disk before the cursor moves.

A crash between the two repeats nothing: what is already at the end of the file is not written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.bridge.core import Unavailable, append, as_json
from edge.errors import SettingsError
from edge.events import Alert, Status

TAIL = 1 << 20
BEGINS = b'{"id":"'
"""How every line of `as_json` begins."""


class JsonLines:
    """See `edge.bridge.core.Target`. If another program moves the file away, a new one is started."""

    most = 100

    def __init__(self, path: Path) -> None:
        """Raises SettingsError if the file holds something else, which is not touched, or cannot be written."""
        self._path = path
        self._there: set[tuple[str, int, str]] = set()
        try:
            self._mend()
            append(path, [])
        except OSError as e:
            raise SettingsError(
                f"{path}: cannot be written", why=e.strerror or str(e), fix="name another file"
            ) from None

    def _mend(self) -> None:
        """Remember the last whole lines, and remove one that a power cut left half written.

        Nothing is written until all that was read has proved to be alerts: the file may be somebody else's.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            start = f.seek(max(0, size - TAIL))
            text = f.read()
        whole = text.rfind(b"\n") + 1
        lines, rest = text[:whole].split(b"\n"), text[whole:]
        for line in filter(None, lines[1:] if start else lines):
            self._there.add(self._name(line))
        if start and not self._there:
            raise SettingsError(f"{self._path}: holds no lines of JSON", fix="name another file")
        if not rest:
            return
        if _parsed(rest) is not None:  # complete except for its newline
            self._there.add(self._name(rest))
            append(self._path, [""])
            return
        if not (self._there or rest.startswith(BEGINS[: len(rest)])):
            raise self._strange(rest)
        # Its alert comes again, since the cursor has not moved past it. Keep a copy, in case the line is not ours.
        with self._path.with_name(f"{self._path.name}.unfinished").open("ab") as aside:
            aside.write(rest + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        with self._path.open("r+b") as f:
            f.truncate(start + whole)
            os.fsync(f.fileno())

    def _name(self, line: bytes) -> tuple[str, int, str]:
        """What identifies an alert. Raises SettingsError for a line that is not an alert."""
        try:
            m: Any = _parsed(line)
            name = m["journal"] or m["run"], m["seq"], m["id"]
            hash(name)
        except (KeyError, TypeError):
            raise self._strange(line) from None
        return name

    def _strange(self, line: bytes) -> SettingsError:
        return SettingsError(
            f"{self._path}: holds a line that is not an alert", why=repr(line[:60]), fix="name another file"
        )

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """See `Target`."""
        fresh = [a for a in alerts if (a.row, a.seq, a.id) not in self._there]
        try:
            append(self._path, [as_json(a) for a in fresh])
        except OSError as e:
            raise Unavailable(f"{self._path}: cannot be written", why=e.strerror or str(e)) from None
        return len(alerts)

    def show_status(self, status: Status) -> None:
        """Does nothing: the file holds only alerts."""

    def stop(self) -> None:
        """Does nothing: a write is not interrupted."""

    def close(self) -> None:
        """Nothing to close: the file is opened for each write."""


def _parsed(line: bytes) -> object | None:
    """The JSON value in a line; None if it is not JSON."""
    try:
        return json.loads(line)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return None
