"""Where things are written, and whether they can be: asked before the work, so that none of it is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.errors import OutputError


def users_folder(variable: str, below: str) -> Path | None:
    """This program's folder where the environment's `variable`, else `below` the user's home, says.

    None: the user has no home, as one that a container invents.
    """
    home = os.environ.get(variable) or os.path.expanduser(f"~/{below}")  # noqa: PTH111
    return None if home.startswith("~") else Path(home) / "haad-edge"


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """An OSError from inside names this path: a write or a flush that fails names none, one of a temporary name means
    nothing to who asked for this one.
    """
    try:
        yield
    except OSError as e:
        e.filename, e.filename2 = str(path), None
        raise


def save_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, its folder made if need be. An OSError names it."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def remedy(e: OSError, otherwise: str) -> str:
    """What to do about what cannot be written."""
    return "free space on that disk" if e.errno in (errno.ENOSPC, errno.EDQUOT) else otherwise


def ready_file(path: Path | None, option: str = "--out") -> None:
    """Raises OutputError unless a file can be written there, its folders made if need be. Nothing is left behind."""
    if path is None:
        return
    try:
        if path.is_dir():
            raise _unwritable(path, "it is a folder, and a file is wanted", f"{option} {path / 'NAME'}")
        if path.is_file():
            with path.open("r+b"):
                return
        if not path.exists():  # a device or a pipe is taken as it is
            _probe(path.parent, path, option)
    except OSError as e:
        raise _unwritable(path, e.strerror or str(e), _another(option)) from None


def ready_folder(path: Path | None, option: str = "--out") -> None:
    """Raises OutputError unless files can be written into that folder, made if need be. Nothing is left behind."""
    if path is None:
        return
    try:
        _probe(path, path, option)
    except OSError as e:
        raise _unwritable(path, e.strerror or str(e), _another(option)) from None


def _unwritable(path: Path, why: str, fix: str) -> OutputError:
    """What is said of a place where nothing can be written."""
    return OutputError(f"{path}: cannot be written", why=why, fix=fix)


def _another(option: str) -> str:
    return f"name another place: {option} PATH, or see that you may write there"


def _probe(folder: Path, wanted: Path, option: str) -> None:
    """Make and remove a folder of a name of its own in the nearest one that exists.

    Only that tells: root may write anywhere by the book, and cannot in /proc or on a read-only disk. The folder that
    is wanted is not made, as another process of the same run may be asking too.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        where = "it" if there == wanted else there
        raise _unwritable(wanted, f"{where} is a file, and a folder is wanted", _another(option))
    try:
        with tempfile.TemporaryDirectory(prefix=".haad-", dir=there):
            pass
    except OSError as e:
        raise _unwritable(wanted, f"nothing can be made in {there}: {e.strerror}", _another(option)) from None
