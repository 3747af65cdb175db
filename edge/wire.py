"""Decodes, checks and encodes pose messages: everything that comes from outside is checked here.

one part:   <topic> \0 <msgpack map>          two parts (topic, map) are read as well
topics:     pose/<stream>   alert/<stream>   score/<stream>   status

The messages that go out are in `edge.events`.
"""

from __future__ import annotations

import math
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from edge.errors import WireError
from edge.skeleton import LAYOUTS, Float, Layout, cleaned

VERSION = 1
FLOAT32 = np.dtype("<f4")
COUNT_LIMIT = 2**62
"""The limit of `seq` and `t`, such that sums of two still fit 64 bits. In ns since 1970 it is the year 2116."""
CONFIDENT = 10.0
"""A larger value is not a confidence. Some trackers go slightly beyond 1; others count to 100, with which all joints
would seem visible."""

Form = tuple[str, int, bool]
"""The form of a message's poses: their layout, the coordinates per joint, and whether they are divided by a size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest pose message allowed; a larger one is refused and counted."""

    message_bytes: int = 1 << 20
    people: int = 256
    name_chars: int = 128


@dataclass(frozen=True, slots=True)
class PoseFrame:
    """One decoded pose message: joints (P, J, C) as sent, visible (P, J) or None, ids (P,), t in ns.

    If not `stamped`, it came without a time, and `t` is the time of its arrival.
    """

    stream: str
    seq: int
    t: int
    layout: Layout
    ids: NDArray[np.int64]
    joints: Float
    visible: Float | None = None
    size: tuple[float, float] | None = None
    end: bool = False
    stamped: bool = True

    @property
    def form(self) -> Form | None:
        """The form of the poses; None if there are no people."""
        if not len(self.ids):
            return None
        c = self.joints.shape[2]
        return self.layout.name, c, c == 2 and self.size is not None

    def core15(self, min_confidence: float = 0.3) -> tuple[Float, Float, int]:
        """Map the people onto core15: joints (P, 15, 3) y up, visible (P, 15) in [0, 1], and the number of bad joints.

        A bad joint was claimed visible at impossible coordinates.
        """
        joints, visible, bad = cleaned(self.joints, self.visible, self.size, min_confidence)
        return *self.layout.to_core15(joints, visible), bad


def split(parts: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The topic and the body of a one- or two-part message. Raises WireError."""
    if len(parts) == 2:
        return parts[0].rstrip(b"\0"), parts[1]
    if len(parts) != 1:
        raise WireError("parts", f"a message of {len(parts)} parts", fix="send one part, or a topic and a body")
    topic, mark, body = parts[0].partition(b"\0")
    if not mark:
        raise WireError("topic", "a message without a topic", fix="send 'pose/<stream>' + NUL + a msgpack map")
    return topic, body


def whole(parts: Sequence[bytes]) -> bytes:
    """Join a message of one or two parts into one part."""
    return parts[0] if len(parts) == 1 else parts[0].rstrip(b"\0") + b"\0" + b"".join(parts[1:])


def join(topic: str, body: Mapping[str, Any]) -> bytes:
    """Make a one-part message of a topic and a map. Bytes of a file's name that are no text become question marks."""
    return topic.encode() + b"\0" + bytes(msgpack.packb(dict(body), unicode_errors="replace"))


def unpack(body: bytes, limits: Limits) -> dict[str, Any]:
    """The msgpack map in `body`. Raises WireError."""
    if len(body) > limits.message_bytes:
        raise WireError("too_large", f"{len(body):,} bytes", why=f"max_message_bytes is {limits.message_bytes:,}")
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=True, max_ext_len=0, max_map_len=64)
    except Exception as e:  # msgpack raises many kinds, which all mean the same here
        raise WireError("msgpack", "the body cannot be read as msgpack", why=f"{type(e).__name__}: {e}"[:200]) from None
    if not isinstance(value, dict):
        raise WireError("msgpack", f"the body is a {type(value).__name__}, not a map")
    return value


def show(value: Any) -> str:
    """A value for an error text, at bounded cost: `repr` of a deeply nested value would raise RecursionError."""
    return reprlib.repr(value)[:40]


def whole_number(m: Mapping[str, Any], key: str) -> int:
    """Read `seq` or `t` from a message. Raises WireError that names it."""
    value = m.get(key)
    if type(value) is not int or not 0 <= value < COUNT_LIMIT:
        raise WireError(f"field_{key}", f"'{key}' is {show(value)}, not an integer from 0 to 2^62 − 1")
    return value


def _floats(value: Any, shape: tuple[int, ...], key: str) -> Float:
    """Read a float32 blob or nested lists as an array of `shape`. Raises WireError."""
    if type(value) is bytes:
        if len(value) != 4 * math.prod(shape):
            raise WireError(
                f"field_{key}", f"'{key}' has {len(value)} bytes", why=f"{shape} float32 are {4 * math.prod(shape)}"
            )
        blob: Float = np.ndarray(shape, FLOAT32, value)
        return blob
    try:
        # Check before numpy sees it: of texts it would make an array as wide as the longest.
        if not _numbers(value, len(shape)):
            raise TypeError
        with np.errstate(over="ignore", invalid="ignore"):  # infinite or NaN: masked like other bad coordinates
            array = np.asarray(value, np.float64).astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        raise WireError(f"field_{key}", f"'{key}' is neither a float32 blob nor lists of numbers") from None
    if array.shape != shape and not (array.size == 0 and 0 in shape):
        raise WireError(f"field_{key}", f"'{key}' has shape {array.shape}, not {shape}")
    return array.reshape(shape)


def _numbers(value: Any, depth: int) -> bool:
    """Whether a value is nested lists of numbers, `depth` deep; empty lists are."""
    if depth == 0:
        return type(value) in (int, float)
    return type(value) is list and all(_numbers(v, depth - 1) for v in value)


def stream_of(topic: bytes, limits: Limits) -> str:
    """The stream's name in a `pose/<stream>` topic. Raises WireError."""
    kind, _, name = topic.partition(b"/")
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = ""
    if kind != b"pose" or not text.isprintable() or not 0 < len(text) <= limits.name_chars:
        raise WireError(
            "topic",
            f"topic {topic[:40]!r}",
            fix=f"use 'pose/<stream>', a printable name of ≤ {limits.name_chars} characters",
        )
    return text


def decode_pose(parts: Sequence[bytes], limits: Limits, wall: Callable[[], int] = time.time_ns) -> PoseFrame:
    """Decode and check one message. Raises WireError; its `reason` labels the counter, its text names the field.

    A message without `t` is taken as captured now, by `wall` in ns.
    """
    topic, body = split(parts)
    return pose_of(stream_of(topic, limits), body, limits, wall)


def pose_of(stream: str, body: bytes, limits: Limits, wall: Callable[[], int] = time.time_ns) -> PoseFrame:
    """`decode_pose` for the body of a message whose topic has been read."""
    try:
        return _pose(stream, unpack(body, limits), limits, wall)
    except WireError as e:
        raise WireError(e.reason, f"stream {stream}: {e.what}", why=e.why, fix=e.fix) from None


def _pose(stream: str, m: Mapping[str, Any], limits: Limits, wall: Callable[[], int]) -> PoseFrame:
    if m.get("v") != VERSION or type(m["v"]) is not int:
        raise WireError("version", f"'v' is {show(m.get('v'))}", why=f"this program reads {VERSION}")
    seq, stamped, end = whole_number(m, "seq"), m.get("t") is not None, m.get("end", False)
    t = whole_number(m, "t") if stamped else wall()
    if type(end) is not bool:
        raise WireError("field_end", f"'end' is {show(end)}, not a boolean")
    name = m.get("layout", "core15" if end else None)
    layout = LAYOUTS.get(name) if isinstance(name, str) else None
    if layout is None:
        raise WireError("field_layout", f"unknown layout {show(name)}", fix=f"use one of: {', '.join(LAYOUTS)}")
    ids = _ids(m.get("ids", []), limits)
    joints = m.get("joints", b"" if len(ids) == 0 else None)
    if joints is None:
        raise WireError("field_joints", "'joints' is missing")
    if joints and "ids" not in m:
        raise WireError("field_ids", "'ids' is missing, but 'joints' is there")
    c = m.get("c", 3 if isinstance(joints, bytes | list) and not joints else _depth(joints))
    if type(c) is not int or c not in (2, 3):
        raise WireError("field_c", f"'c' is {show(c)}, not 2 or 3", why="a blob needs the number of coordinates")
    visible = m.get("visible")
    seen = None if visible is None else _floats(visible, (len(ids), layout.size), "visible")
    if seen is not None and (seen > CONFIDENT).any():
        raise WireError(
            "field_visible",
            f"'visible' reaches {seen[seen > CONFIDENT].max():g}",
            why="it is a confidence from 0 to 1",
            fix="divide percentages by 100",
        )
    return PoseFrame(
        stream,
        seq,
        t,
        layout,
        ids,
        _floats(joints, (len(ids), layout.size, c), "joints"),
        seen,
        _size(m.get("size")),
        end,
        stamped,
    )


def _ids(value: Any, limits: Limits) -> NDArray[np.int64]:
    if type(value) is not list or not set(map(type, value)) <= {int}:
        raise WireError("field_ids", f"'ids' is {show(value)}, not a list of integers")
    if len(value) > limits.people:
        raise WireError("too_many_people", f"{len(value)} people in a message", why=f"max_people is {limits.people}")
    if len(set(value)) != len(value):
        raise WireError("field_ids", "'ids' names a track twice")
    try:
        return np.array(value, np.int64)
    except OverflowError:
        raise WireError("field_ids", f"'ids' is {show(value)}: an id must fit a signed 64-bit integer") from None


def _depth(joints: Any) -> Any:
    """The innermost length of nested lists; None for anything else."""
    try:
        return len(joints[0][0])
    except (TypeError, IndexError, KeyError):
        return None


def _size(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or any(type(x) not in (int, float) or not 1 <= x <= 1e6 for x in value)
    ):
        raise WireError("field_size", f"'size' is {show(value)}, not [width, height] in pixels")
    return float(value[0]), float(value[1])


def encode_pose(frame: PoseFrame) -> bytes:
    """Encode a frame as a one-part pose message."""
    m: dict[str, Any] = {
        "v": VERSION,
        "seq": frame.seq,
        "t": frame.t,
        "layout": frame.layout.name,
        "ids": frame.ids.tolist(),
        "joints": np.ascontiguousarray(frame.joints, "<f4").tobytes(),
        "c": frame.joints.shape[-1],
    }
    if frame.visible is not None:
        m["visible"] = np.ascontiguousarray(frame.visible, "<f4").tobytes()
    if frame.size is not None:
        m["size"] = list(frame.size)
    if frame.end:
        m["end"] = True
    return join(f"pose/{frame.stream}", m)
