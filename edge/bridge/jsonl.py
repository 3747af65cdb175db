"""Alerts as lines of JSON at the end of a file, each on disk before the cursor moves.

A crash between the two repeats nothing: what the file's end holds already is not written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from edge.bridge.core import Unavailable, append, as_json
from edge.errors import SettingsError
from edge.events import Alert, Status

TAIL = 1 << 20


class JsonLines:
    """See `edge.bridge.core.Target`. A file that another program moves away is begun anew."""

    most = 100

    def __init__(self, path: Path) -> None:
        """Raises SettingsError when the file holds something else, or cannot be written."""
        self._path = path
        self._there: set[tuple[str, int, str]] = set()
        try:
            self._mend()
            append(path, [])
        except OSError as e:
            raise SettingsError(f"{path}: cannot be written", why=str(e), fix="name another file") from None

    def _mend(self) -> None:
        """Cut off a line that a power cut left half written, and note what the last whole ones are."""
        if not self._path.exists():
            return
        with self._path.open("r+b") as f:
            size = f.seek(0, os.SEEK_END)
            start = f.seek(max(0, size - TAIL))
            text = f.read()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                if not whole and start:
                    raise SettingsError(f"{self._path}: no lines of JSON", fix="name another file")
                f.truncate(start + whole)
                os.fsync(f.fileno())
        lines = text[:whole].split(b"\n")
        for line in filter(None, lines[1:] if start else lines):
            try:
                m = json.loads(line)
                self._there.add((m["journal"] or m["run"], m["seq"], m["id"]))
            except (ValueError, KeyError, TypeError):
                raise SettingsError(
                    f"{self._path}: holds a line that is no alert", why=repr(line[:60]), fix="name another file"
                ) from None

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """See `Target`."""
        fresh = [a for a in alerts if (a.row, a.seq, a.id) not in self._there]
        try:
            append(self._path, [as_json(a) for a in fresh])
        except OSError as e:
            raise Unavailable(f"{self._path}: cannot be written", why=str(e)) from None
        return len(alerts)

    def tell(self, status: Status) -> None:
        """States are not alerts."""

    def close(self) -> None:
        """Nothing is open."""
