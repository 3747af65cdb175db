"""Keeps the versions of a support folder, and makes every change to it atomic.

    .history/objects/<sha256>     every clip of every version on record
             versions/<n>.json    number, date, what was done, and the files: "walk/1.npz" → sha256
             pending.json         the version that is being put in place; renamed to versions/<n>.json when done
             lock                 shared by processes that read the folder, exclusive for one that changes it

A change writes the new contents to objects/, writes pending.json, puts the files in place, and turns pending.json into
the version. A process that finds a pending.json, left by one that died, first puts the remaining files in place. So a
reader inside `reading` sees the folder as it was before a change or after it, and an undo restores the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from edge.bundle import replace_file
from edge.errors import SupportError
from edge.notices import Notices

FOLDER = ".history"
VERSIONS_MOST = 200
PATIENCE_S, POLL_S = 1.5, 0.02
"""Seconds after which waiting for the lock is announced, and seconds between attempts until then."""
Files = dict[str, str]
"""Path within the folder → sha256 of the content."""
_NAME, _SHA256 = re.compile(r"[^./\0][^/\0]*(/[^/\0]+\.npz|\.json)"), re.compile("[0-9a-f]{64}")
"""What a version may list. Its file may come from elsewhere, with the folder: no path may lead out of it."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the folder. `back` is the number of the version that undoing this one restores, or 0."""

    number: int
    date: str
    what: str
    back: int
    files: Files

    @property
    def clips(self) -> int:
        return sum(name.endswith(".npz") for name in self.files)

    @property
    def categories(self) -> int:
        return len({name.partition("/")[0] for name in self.files if "/" in name})


@contextlib.contextmanager
def reading(root: Path) -> Iterator[None]:
    """Hold off changes through this module while the folder is read; first complete a change that was cut off.

    Costs nothing without a history. Raises SupportError if an interrupted change cannot be completed.
    """
    home = root / FOLDER
    if not home.is_dir():
        yield
        return
    with _locked(home, fcntl.LOCK_SH):
        half = (home / "pending.json").exists()
        if not half:
            yield
            return
    try:
        with changing(root):
            pass
    except OSError as e:
        raise SupportError(
            f"{root}: a change to the folder was interrupted",
            why=f"it cannot be completed here ({e.strerror})",
            fix=f"haad-edge support list --support {root}, as a user who may write there",
        ) from None
    with _locked(home, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def changing(root: Path) -> Iterator[History]:
    """Open the folder's history with exclusive access to the folder. Raises SupportError if there is no such folder."""
    if not root.is_dir():
        raise SupportError(f"{root}: no such folder", fix="make it, as DIR/<category>/<clip>.npz")
    home = root / FOLDER
    for name in ("objects", "versions"):
        (home / name).mkdir(parents=True, exist_ok=True)
    with _locked(home, fcntl.LOCK_EX):
        history = History(root)
        history.complete()
        yield history


@contextlib.contextmanager
def _locked(home: Path, kind: int) -> Iterator[None]:
    """Hold the folder's lock. A folder that cannot be written may have no lock file; then nobody changes it either."""
    try:
        fd = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        if kind == fcntl.LOCK_EX:
            raise
        try:
            fd = os.open(home / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            yield
            return
    try:
        _wait(fd, kind, home / "lock")
        yield
    finally:
        os.close(fd)


def _wait(fd: int, kind: int, path: Path) -> None:
    """Take the lock, however long that takes; after PATIENCE_S say what is waited for, and who holds it."""
    for _ in range(round(PATIENCE_S / POLL_S)):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(POLL_S)
    who = _holders(fd)
    Notices().say(f"waiting for {path}: {who or 'another process'} holds it")
    fcntl.flock(fd, kind)


def _holders(fd: int) -> str:
    """Name the processes that hold the file's lock, as far as /proc/locks tells."""
    s = os.fstat(fd)
    name = f"{os.major(s.st_dev):02x}:{os.minor(s.st_dev):02x}:{s.st_ino}"
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    pids = [pid for _, how, _, _, pid, file, *_ in locks if (how, file) == ("FLOCK", name)]
    return ", ".join(f"process {pid}" for pid in pids if pid != "0")  # 0: a process in another container


class History:
    """A support folder's versions and changes. Opened by `changing`, which holds the lock."""

    def __init__(self, root: Path) -> None:
        self.root, self._home = root, root / FOLDER
        self._pending = self._home / "pending.json"

    # ---- reading -----------------------------------------------------------------------------------------------

    def current(self) -> Files:
        """The folder's files as they are now: its categories' clips, and the .json files beside them."""
        found = [p for p in self.root.glob("*/*.npz") if not p.parent.name.startswith(".")]
        found += [p for p in self.root.glob("*.json") if not p.name.startswith(".")]
        return {p.relative_to(self.root).as_posix(): _digest(p) for p in sorted(found) if p.is_file()}

    def versions(self) -> list[Version]:
        """All versions on record, oldest first. Raises SupportError for a damaged one."""
        paths = sorted((self._home / "versions").glob("*.json"))
        return [_load(p) for p in paths]

    # ---- changing ----------------------------------------------------------------------------------------------

    def change(self, what: str, edit: Callable[[Files, Callable[[bytes], str]], None]) -> Version:
        """Make a new version. `edit` alters a copy of the files; its second argument stores content: bytes → sha256.

        Changes made by hand since the last version become a version of their own first.
        """
        last = self._catch_up()
        files = dict(last.files)
        edit(files, self._store)
        return self._become(Version(last.number + 1, _date(), what, last.number, files), last)

    def undo(self, to: int | None = None) -> Version:
        """Restore the state before the last change, or version `to`. It becomes a new version, so nothing is lost."""
        last = self._catch_up()
        goal = last.back if to is None else to
        known = {v.number: v for v in self.versions()}
        if goal not in known:
            raise SupportError(
                f"{self.root}: there is no version {goal}" if to is not None else f"{self.root}: nothing to undo",
                why=f"versions {min(known)} to {max(known)} are on record",
                fix="haad-edge support list shows them",
            )
        back = known[goal].back if to is None else last.number
        what = f"undo: as in version {goal}"
        return self._become(Version(last.number + 1, _date(), what, back, known[goal].files), last)

    def _catch_up(self) -> Version:
        """Return the folder's present state as a version, which is made first if the folder was changed by hand."""
        versions, files = self.versions(), self.current()
        last = versions[-1] if versions else None
        if last and last.files == files:
            return last
        for name, digest in files.items():
            if self._store((self.root / name).read_bytes()) != digest:
                raise SupportError(f"{self.root / name}: is being written", fix="try again when it is complete")
        number, back = (last.number + 1, last.number) if last else (1, 0)
        found = Version(number, _date(), "changed by hand" if last else "found as it was", back, files)
        replace_file(self._path(number), _dump(found))
        return found

    def _store(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._home / "objects" / digest
        if not path.exists() or _digest(path) != digest:
            replace_file(path, data)
        return digest

    def _become(self, version: Version, last: Version) -> Version:
        if version.files == last.files:
            raise SupportError(f"{self.root}: nothing would change", why="the folder is already in that state")
        if not version.clips:
            raise SupportError(
                f"{self.root}: no clip would be left",
                why="without any clip nothing is normal",
                fix="add other clips first",
            )
        for name, digest in version.files.items():
            path = self._home / "objects" / digest
            if not path.exists() or _digest(path) != digest:
                raise SupportError(f"{path}: missing or damaged", why=f"version {version.number} needs it for {name}")
        replace_file(self._pending, _dump(version))
        self.complete()
        self._prune()
        return version

    def complete(self) -> None:
        """Put a pending version in place, if there is one: write the files it has, then delete those it lacks."""
        if not self._pending.exists():
            return
        version = _load(self._pending)
        before = self.current()
        for name, digest in version.files.items():
            if before.get(name) != digest:
                replace_file(self.root / name, content(self._home / "objects" / digest))
        for name in before.keys() - version.files.keys():
            path = self.root / name
            path.unlink(missing_ok=True)
            if path.parent != self.root:
                with contextlib.suppress(OSError):  # not empty: it holds other files, such as notes
                    path.parent.rmdir()
        self._pending.replace(self._path(version.number))

    def _prune(self) -> None:
        """Delete the oldest versions beyond VERSIONS_MOST, and contents that no version has."""
        versions = self.versions()
        if len(versions) <= VERSIONS_MOST:
            return
        for old in versions[:-VERSIONS_MOST]:
            self._path(old.number).unlink(missing_ok=True)
        needed = {digest for v in versions[-VERSIONS_MOST:] for digest in v.files.values()}
        for path in (self._home / "objects").iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._home / "versions" / f"{number:06}.json"


def content(path: Path) -> bytes:
    """A file's bytes. Raises OSError, also for a pipe or a device, which may have no end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while data := f.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _date() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _dump(version: Version) -> bytes:
    return (json.dumps(asdict(version), indent=1, ensure_ascii=False) + "\n").encode(errors="surrogateescape")


def _load(path: Path) -> Version:
    try:
        v = Version(**json.loads(content(path).decode(errors="surrogateescape")))
        if [type(x) for x in (v.number, v.back, v.date, v.what)] != [int, int, str, str]:
            raise ValueError("a field is of another type")
        for name, digest in v.files.items():
            os.fsencode(name)  # raises ValueError for text that no file name can be
            if not (_NAME.fullmatch(name) and _SHA256.fullmatch(digest)):
                raise ValueError(f"{name!r:.80} is no file of a support, or has no sha256")
        return v
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise SupportError(
            f"{path}: cannot be read as a version of the support",
            why=str(e),
            fix="move it away; the clips themselves are not in it",
        ) from None
