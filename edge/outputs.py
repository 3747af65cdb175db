"""Checks before the work that its output can be written, so that no work is lost; and finds the user's folders."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.errors import OutputError


def users_folder(variable: str, below: str) -> Path | None:
    """This program's folder in the one that the environment's `variable` names, or else in `below` the user's home.

    None if the user has no home, for example one that exists only inside a container.
    """
    home = os.environ.get(variable) or os.path.expanduser(f"~/{below}")  # noqa: PTH111
    return None if home.startswith("~") else Path(home) / "haad-edge"


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Make an OSError from the block name this path.

    A failed write or flush names no file, and the name of a temporary file means nothing to the user.
    """
    try:
        yield
    except OSError as e:
        e.filename, e.filename2 = str(path), None
        raise


def save_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, creating its folder if necessary. An OSError names the file."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def remedy(e: OSError, otherwise: str) -> str:
    """What to do about a failed write: free space if the disk is full, else `otherwise`."""
    return "free space on that disk" if e.errno in (errno.ENOSPC, errno.EDQUOT) else otherwise


def ready_file(path: Path | None, option: str = "--out") -> None:
    """Raise OutputError unless a file can be written there, with its folders if necessary. Leaves nothing behind."""
    if path is None:
        return
    try:
        if path.is_dir():
            raise _unwritable(path, "it is a folder, but a file is needed", f"{option} {path / 'NAME'}")
        if path.is_file():
            with path.open("r+b"):
                return
        if not path.exists():  # a device or a pipe is not checked
            _probe(path.parent, path, option)
    except OSError as e:
        raise _unwritable(path, e.strerror or str(e), _another(option)) from None


def ready_folder(path: Path | None, option: str = "--out") -> None:
    """Raise OutputError unless files can be written into that folder, or it can be created. Leaves nothing behind."""
    if path is None:
        return
    try:
        _probe(path, path, option)
    except OSError as e:
        raise _unwritable(path, e.strerror or str(e), _another(option)) from None


def _unwritable(path: Path, why: str, fix: str) -> OutputError:
    """The error for a path that cannot be written."""
    return OutputError(f"{path}: cannot be written", why=why, fix=fix)


def _another(option: str) -> str:
    return f"name another place: {option} PATH, or get permission to write there"


def _probe(folder: Path, wanted: Path, option: str) -> None:
    """Create and remove a folder with a unique name in the nearest folder that exists. Raises OutputError.

    Nothing else is reliable: permissions say that root may write anywhere, but in /proc or on a read-only disk it
    cannot. The wanted folder itself is not created, since another process of the same run may be checking it too.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        where = "it" if there == wanted else there
        raise _unwritable(wanted, f"{where} is a file, but a folder is needed", _another(option))
    try:
        with tempfile.TemporaryDirectory(prefix=".haad-", dir=there):
            pass
    except OSError as e:
        raise _unwritable(wanted, f"nothing can be created in {there}: {e.strerror}", _another(option)) from None
