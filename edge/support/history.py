"""The versions of a support folder, and the one way in which it is changed.

    .history/objects/<sha256>     every clip that a version ever had
             versions/<n>.json    number, date, what was done, and the files: "walk/1.npz" → sha256
             pending.json         the version that is being put in place; gone when it is
             lock                 shared by who reads the folder, alone for who changes it

A change is: write the new contents aside, write pending.json, put the files in place, make pending.json the version.
Whoever finds a pending.json, the process before him having died, puts the rest in place first. So a reader that comes
by way of `reading` sees the folder before a change or after it, and an undo gives back the very bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from edge.bundle import replace
from edge.errors import SupportError
from edge.notices import Notices

FOLDER = ".history"
VERSIONS_MOST = 200
PATIENCE_S, LOOK_S = 1.5, 0.02
"""A lock that is held for longer is told of; so often it is tried until then."""
Files = dict[str, str]
"""Path within the folder → sha256 of the content."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the folder. `back` is the number of the version that an undo of this one leads to, or 0."""

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
    """While open nobody changes the folder by way of this module; what was left half done is done first.

    Costs nothing where there is no history. Raises SupportError where half a change cannot be completed.
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
            f"{root}: a change was cut off in the middle",
            why=f"and cannot be completed here ({e.strerror})",
            fix=f"haad-edge support list --support {root}, as somebody who may write there",
        ) from None
    with _locked(home, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def changing(root: Path) -> Iterator[History]:
    """The folder's history, with the folder to oneself."""
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
    """Hold the folder's lock. A folder that cannot be written has no lock file, and nobody changes it."""
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
    """Take the lock, however long that takes; after a while say what is waited for, and for whom."""
    for _ in range(round(PATIENCE_S / LOOK_S)):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(LOOK_S)
    who = _holders(fd)
    Notices().say(f"waiting for {path}: {who or 'another process'} has it")
    fcntl.flock(fd, kind)


def _holders(fd: int) -> str:
    """The processes that hold the file's lock, as far as the kernel tells."""
    s = os.fstat(fd)
    name = f"{os.major(s.st_dev):02x}:{os.minor(s.st_dev):02x}:{s.st_ino}"
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    pids = [pid for _, how, _, _, pid, file, *_ in locks if (how, file) == ("FLOCK", name)]
    return ", ".join(f"process {pid}" for pid in pids if pid != "0")  # as it is called in another container


class History:
    """See `changing`, which makes it."""

    def __init__(self, root: Path) -> None:
        self.root, self._home = root, root / FOLDER
        self._pending = self._home / "pending.json"

    # ---- what there is -----------------------------------------------------------------------------------------

    def now(self) -> Files:
        """The folder as it is: its categories' clips, and the .json files beside them."""
        found = [p for p in self.root.glob("*/*.npz") if not p.parent.name.startswith(".")]
        found += [p for p in self.root.glob("*.json") if not p.name.startswith(".")]
        return {p.relative_to(self.root).as_posix(): _digest(p) for p in sorted(found) if p.is_file()}

    def versions(self) -> list[Version]:
        """All that are kept, oldest first. Raises SupportError for a damaged one."""
        paths = sorted((self._home / "versions").glob("*.json"))
        return [_load(p) for p in paths]

    # ---- what is done ------------------------------------------------------------------------------------------

    def change(self, what: str, edit: Callable[[Files, Callable[[bytes], str]], None]) -> Version:
        """Make a new version: `edit` alters a copy of the files, given a way to put new content aside (bytes → sha256).

        What was changed by hand since the last version becomes a version of its own first.
        """
        last = self._catch_up()
        files = dict(last.files)
        edit(files, self._store)
        return self._become(Version(last.number + 1, _date(), what, last.number, files), last)

    def undo(self, to: int | None = None) -> Version:
        """Back to what was before the last change, or to version `to`; itself a version, so that nothing is lost."""
        last = self._catch_up()
        goal = last.back if to is None else to
        known = {v.number: v for v in self.versions()}
        if goal not in known:
            raise SupportError(
                f"{self.root}: there is no version {goal}" if to is not None else f"{self.root}: nothing to undo",
                why=f"on record are {min(known)} to {max(known)}",
                fix="haad-edge support list shows them",
            )
        back = known[goal].back if to is None else last.number
        what = f"undo: as in version {goal}"
        return self._become(Version(last.number + 1, _date(), what, back, known[goal].files), last)

    def _catch_up(self) -> Version:
        """The version that the folder has now, made if it was changed by hand."""
        versions, files = self.versions(), self.now()
        last = versions[-1] if versions else None
        if last and last.files == files:
            return last
        for name, digest in files.items():
            if self._store((self.root / name).read_bytes()) != digest:
                raise SupportError(f"{self.root / name}: is being written", fix="try again when it is whole")
        number, back = (last.number + 1, last.number) if last else (1, 0)
        found = Version(number, _date(), "changed by hand" if last else "found as it was", back, files)
        replace(self._path(number), _dump(found))
        return found

    def _store(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._home / "objects" / digest
        if not path.exists() or _digest(path) != digest:
            replace(path, data)
        return digest

    def _become(self, version: Version, last: Version) -> Version:
        if version.files == last.files:
            raise SupportError(f"{self.root}: nothing would change", why="the folder is like that already")
        if not version.clips:
            raise SupportError(
                f"{self.root}: no clip would be left", why="without any, nothing is normal", fix="add others first"
            )
        for name, digest in version.files.items():
            path = self._home / "objects" / digest
            if not path.exists() or _digest(path) != digest:
                raise SupportError(f"{path}: missing or damaged", why=f"version {version.number} needs it for {name}")
        replace(self._pending, _dump(version))
        self.complete()
        self._prune()
        return version

    def complete(self) -> None:
        """Put a pending version in place, if there is one: what it has first, then what it has no more goes."""
        if not self._pending.exists():
            return
        version = _load(self._pending)
        before = self.now()
        for name, digest in version.files.items():
            if before.get(name) != digest:
                replace(self.root / name, (self._home / "objects" / digest).read_bytes())
        for name in before.keys() - version.files.keys():
            path = self.root / name
            path.unlink(missing_ok=True)
            if path.parent != self.root:
                with contextlib.suppress(OSError):  # not empty: somebody's notes
                    path.parent.rmdir()
        self._pending.replace(self._path(version.number))

    def _prune(self) -> None:
        """Forget the oldest versions beyond VERSIONS_MOST, and contents that no version has."""
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
        return Version(**json.loads(path.read_bytes().decode(errors="surrogateescape")))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise SupportError(
            f"{path}: not a version of the support", why=str(e), fix="move it away; the clips themselves are not in it"
        ) from None
