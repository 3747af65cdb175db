"""Locks a file for one process. The kernel releases the lock when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from edge.errors import SettingsError


class FileLock:
    """Holds `<path>.lock` until closed. A separate file, since closing any handle of SQLite's own drops its locks."""

    def __init__(self, path: Path, *, fix: str) -> None:
        """Raises SettingsError with this `fix` if another process holds the lock; OSError if locking fails."""
        path = path.resolve()  # the same lock whatever name the file is opened by
        self._fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 20, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise SettingsError(f"{path} is in use", why=f"process {owner or '?'} has it open", fix=fix) from None
        except OSError:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
