"""Reads and writes recordings: pose messages as they arrived, in one file, so that the same input can be replayed.

    MAGIC │ length u32 │ arrival i64 (ns) │ crc u32 │ message │ length │ …            little-endian

`message` is a one-part pose message as on the wire; a two-part message is joined before it is written. A file whose end
is missing (power cut, full disk) is read up to its last whole message, and the reader reports that.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from edge.errors import RecordingError
from edge.outputs import remedy
from edge.wire import whole

MAGIC = b"HAADREC1"
HEAD = struct.Struct("<IqI")
TIME = struct.Struct("<q")
MAX_MESSAGE = 16 << 20
"""The largest message in bytes: the most that `max_message_bytes` can be set to."""


class Recorded(NamedTuple):
    """One message and when it arrived, in ns since 1970."""

    arrival: int
    message: bytes


def checksum(arrival: int, message: bytes) -> int:
    """CRC-32 of the arrival time and the message."""
    return zlib.crc32(message, zlib.crc32(TIME.pack(arrival)))


class Writer:
    """Writes a new recording, as a context manager. Messages added are on disk after `flush`.

    Raises RecordingError if the file exists, or cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        try:
            self._file: BinaryIO = path.open("xb")
        except FileExistsError:
            raise RecordingError(f"{path}: exists already", fix="name another file, or delete this one") from None
        except OSError as e:
            raise _unwritten(path, e) from None
        self.path, self.messages, self.bytes, self._first = path, 0, len(MAGIC), 0
        self._file.write(MAGIC)

    def add(self, parts: Sequence[bytes], arrival: int) -> None:
        """Append a message of one or two parts (topic, body). Raises RecordingError when the disk refuses it."""
        message = whole(parts)
        if len(message) > MAX_MESSAGE:
            raise RecordingError(f"a message of {len(message):,} bytes", why=f"at most {MAX_MESSAGE:,} are recorded")
        try:
            self._file.write(HEAD.pack(len(message), arrival, checksum(arrival, message)) + message)
        except OSError as e:
            raise _unwritten(self.path, e) from None
        self.messages += 1
        self.bytes += HEAD.size + len(message)
        self._first = self._first or self.bytes

    def flush(self) -> None:
        """Hand everything to the operating system and wait until the disk has it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise _unwritten(self.path, e) from None

    def close(self) -> None:
        """Flush and close; may be called twice. A file without a whole message is removed, since it would block the
        next attempt.
        """
        if not self._file.closed:
            try:
                self.flush()
            finally:
                with contextlib.suppress(OSError):  # closing tries again to write what `flush` could not
                    self._file.close()
                with contextlib.suppress(OSError):
                    if not self.messages or self.path.stat().st_size < self._first:
                        self.path.unlink()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()


def _unwritten(path: Path, e: OSError) -> RecordingError:
    fix = remedy(e, "name a file in a folder that you may write to")
    return RecordingError(f"{path}: cannot be written", why=e.strerror or str(e), fix=fix)


class Reader:
    """Iterates over a recording, any number of times.

    `problem` says why the last iteration ended before the end of the file; '' if it did not. Raises RecordingError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.problem = ""
        with self._open() as f:
            if f.read(len(MAGIC)) != MAGIC:
                raise RecordingError(f"{path}: not a recording", fix="haad-edge record makes one")

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as e:
            raise RecordingError(f"{self.path}: cannot be read", why=e.strerror or str(e)) from None

    def __iter__(self) -> Iterator[Recorded]:
        self.problem = ""
        with self._open() as f:
            f.seek(len(MAGIC))
            while head := f.read(HEAD.size):
                at = f.tell() - len(head)
                if len(head) < HEAD.size:
                    self.problem = f"{self.path}: cut off at byte {at:,}"
                    return
                length, arrival, crc = HEAD.unpack(head)
                # A damaged length must not make us allocate gigabytes.
                message = f.read(min(length, MAX_MESSAGE))
                if length <= MAX_MESSAGE and len(message) < length:
                    self.problem = f"{self.path}: cut off at byte {at:,}"
                    return
                if length > MAX_MESSAGE or checksum(arrival, message) != crc or arrival < 0:
                    self.problem = f"{self.path}: damaged at byte {at:,}; the rest is not read"
                    return
                yield Recorded(arrival, message)


def write(path: Path | str) -> Writer:
    """Begin a new recording. Raises RecordingError if the file exists or cannot be created."""
    return Writer(path)


def is_recording(path: Path | str) -> bool:
    """Whether a file begins as a recording does."""
    try:
        if not Path(path).is_file():  # opening a pipe would wait for a writer
            return False
        with Path(path).open("rb") as f:
            return f.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read(path: Path | str) -> Reader:
    """Open a recording to iterate over. Raises RecordingError if the file is not one."""
    return Reader(path)
