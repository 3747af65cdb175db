"""A recording gives back what was put in, and of a damaged one all that came before the damage."""

from __future__ import annotations

import contextlib
import resource
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import RecordingError
from edge.recordings.recording import HEAD, MAGIC, read, write

MESSAGES = [(5, b"pose/a\0one"), (6, b"pose/b\0"), (2**62, b"pose/a\0" + bytes(3000))]


def record(path: Path) -> bytes:
    with write(path) as f:
        for t, m in MESSAGES:
            f.add([m], t)
        assert f.messages == 3
    data = path.read_bytes()
    assert f.bytes == len(data)
    return data


def test_round_trip_and_the_bytes_on_disk(tmp_path: Path) -> None:
    data = record(tmp_path / "x.haad")
    reader = read(tmp_path / "x.haad")
    assert list(reader) == MESSAGES == list(reader) and reader.problem == ""
    first = MESSAGES[0][1]
    assert (
        data[: 8 + 16 + len(first)]
        == b"HAADREC1" + struct.pack("<IqI", len(first), 5, zlib.crc32(struct.pack("<q", 5) + first)) + first
    )


def test_two_parts_become_one(tmp_path: Path) -> None:
    with write(tmp_path / "x") as f:
        f.add([b"pose/a", b"body"], 1)
        f.add([b"pose/a\0", b"body"], 2)
    assert [m for _, m in read(tmp_path / "x")] == [b"pose/a\0body"] * 2


@given(cut=st.integers(0, 3200), flip=st.booleans())
def test_a_damaged_recording_gives_what_came_before(
    cut: int, flip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("r") / "x"
    data = record(path)
    cut = min(cut, len(data) - 1) if flip else min(cut, len(data))
    path.write_bytes(data[:cut] + bytes([data[cut] ^ 0xFF]) + data[cut + 1 :] if flip else data[:cut])
    ends = [len(MAGIC)]
    for _, m in MESSAGES:
        ends.append(ends[-1] + HEAD.size + len(m))
    if cut < len(MAGIC):
        with pytest.raises(RecordingError, match="not a recording"):
            read(path)
        return
    reader = read(path)
    found = list(reader)
    whole = sum(e <= cut for e in ends) - 1
    assert found[:whole] == MESSAGES[:whole]
    assert len(found) == whole and bool(reader.problem) == (cut not in ends or flip)
    assert str(path) in reader.problem or not reader.problem


def test_an_arrival_before_1970_is_damage(tmp_path: Path) -> None:
    """A message without a time gets that of its arrival; the distance of two such times must fit 64 bits."""
    with write(tmp_path / "x") as f:
        f.add([MESSAGES[0][1]], 5)
        f.add([MESSAGES[0][1]], -(2**63))
    reader = read(tmp_path / "x")
    assert list(reader) == MESSAGES[:1] and "damaged" in reader.problem


@pytest.mark.parametrize("in_time", [True, False])
def test_a_full_disk_is_an_error_with_the_files_name_and_what_fitted_can_be_read(tmp_path: Path, in_time: bool) -> None:
    """Whether a message finds out, or only the end of the recording."""
    path, message = tmp_path / "x.haad", b"pose/a\0" + bytes(500)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RecordingError, match=r"x\.haad: cannot be written"), write(path) as f:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
            for t in range(1000 if in_time else 4):
                f.add([message], t)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    reader = read(path)
    assert list(reader) == [(0, message), (1, message)] and "cut off" in reader.problem
    f.close()


@pytest.mark.parametrize(("count", "size"), [(0, 500), (1, 500), (1, 100_000), (3, 500)])
def test_a_recording_without_a_whole_message_does_not_stand_in_the_way(tmp_path: Path, count: int, size: int) -> None:
    """Nothing came, or the disk was full before the first message was on it."""
    path = tmp_path / "x.haad"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with contextlib.ExitStack() as stack:
            if count:
                resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
                stack.enter_context(pytest.raises(RecordingError, match="cannot be written"))
            f = stack.enter_context(write(path))
            for t in range(count):
                f.add([b"pose/a\0" + bytes(size)], t)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not path.exists()
    f.close()
    assert record(path)


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    record(tmp_path / "x")
    with pytest.raises(RecordingError, match="exists already"):
        write(tmp_path / "x")
    with pytest.raises(RecordingError, match="cannot be written"):
        write(tmp_path / "none" / "x")
    with pytest.raises(RecordingError, match="cannot be read"):
        read(tmp_path / "none")
    with write(tmp_path / "y") as f, pytest.raises(RecordingError, match="16,777,217"):
        f.add([bytes((16 << 20) + 1)], 0)
