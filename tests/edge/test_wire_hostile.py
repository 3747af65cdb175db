"""Whatever bytes come from outside, decoding ends in a frame or a WireError, and soon."""

from __future__ import annotations

import contextlib
import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import WireError
from edge.events import decode_event
from edge.skeleton import LAYOUTS
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose

LIMITS = Limits(message_bytes=1 << 20)
KEYS = ("v", "seq", "t", "layout", "ids", "joints", "c", "visible", "size", "end")
GOOD: dict[str, Any] = {
    "v": 1, "seq": 1, "t": 2, "layout": "core15", "ids": [9], "joints": np.arange(45, dtype="<f4").tobytes(), "c": 3,
    "visible": np.ones(15, "<f4").tobytes(), "size": [640, 480], "end": False,
}  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(width=64)
    | st.text(max_size=8)
    | st.binary(max_size=200)
    | st.sampled_from([*LAYOUTS, b"\0" * 180, b"\xff" * 180])
    | st.builds(msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 999))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8))
)
VALUES = st.recursive(
    LEAVES,
    lambda x: st.lists(x, max_size=5) | st.dictionaries(st.text(max_size=3) | st.binary(max_size=2), x, max_size=3),
    max_leaves=12,
)


def outcome(parts: list[bytes], limits: Limits = LIMITS) -> WireError | PoseFrame:
    """The frame, checked to be whole and usable, or the WireError; any other exception is the test's failure."""
    with contextlib.suppress(WireError):
        decode_event(parts)
    try:
        frame = decode_pose(parts, limits)
    except WireError as e:
        assert e.reason.replace("_", "").isalpha() and len(str(e)) < 500
        return e
    people, size = len(frame.ids), frame.layout.size
    assert people <= limits.people and len(set(frame.ids.tolist())) == people
    assert frame.joints.shape in ((people, size, 2), (people, size, 3)) and frame.joints.dtype == np.float32
    assert frame.visible is None or frame.visible.shape == (people, size)
    assert 0 <= frame.seq < 2**62 and 0 <= frame.t < 2**62
    core, visible, _ = frame.core15()
    assert np.isfinite(core).all() and np.isfinite(visible).all()
    return frame


def refused(parts: list[bytes]) -> WireError:
    with pytest.raises(WireError) as e:
        decode_pose(parts, LIMITS)
    return e.value


@contextlib.contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """The Python heap grows by no more than `limit` bytes at any time within."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=3), st.sampled_from([b"", b"pose/a\0", b"status\0", b"alert/a\0"]))
def test_arbitrary_bytes(parts: list[bytes], prefix: bytes) -> None:
    outcome([prefix + parts[0], *parts[1:]] if parts else [])


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4), st.sampled_from(["pose/a", "status"]))
def test_arbitrary_values_in_an_otherwise_good_message(changes: dict[str, Any], topic: str) -> None:
    outcome([topic.encode() + b"\0" + msgpack.packb({**GOOD, **changes})])


@settings(derandomize=True, max_examples=150, deadline=None)
@given(VALUES)
def test_an_arbitrary_body(value: Any) -> None:
    found = outcome([b"pose/a\0" + msgpack.packb(value)])
    assert isinstance(found, WireError) and found.reason in ("msgpack", "version")


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_good_message_with_some_bytes_exchanged(damage: list[tuple[int, int]]) -> None:
    message = bytearray(b"pose/a\0" + msgpack.packb(GOOD))
    for at, value in damage:
        message[at % len(message)] = value
    outcome([bytes(message)])


def test_a_good_message_cut_anywhere_is_refused() -> None:
    rng = np.random.default_rng(0)
    layout = LAYOUTS["coco17"]
    joints = rng.normal(size=(2, 17, 2)).astype(np.float32)
    whole = encode_pose(PoseFrame("a", 1, 2, layout, np.array([1, 2]), joints, None, (640.0, 480.0)))
    assert isinstance(outcome([whole]), PoseFrame)
    for cut in range(len(whole)):
        assert isinstance(outcome([whole[:cut]]), WireError), cut
    for extra in (b"\0", b"\xc0", whole):
        assert isinstance(outcome([whole + extra]), WireError)


@pytest.mark.parametrize("depth", [10, 500, 990, 1015, 1023, 1024, 5000, 100_000])
@pytest.mark.parametrize("shape", [b"\x91", b"\x81\xa1a"])
@pytest.mark.parametrize("key", [*KEYS, "other"])
def test_deep_nesting_in_any_field(key: str, shape: bytes, depth: int) -> None:
    m = {k: v for k, v in GOOD.items() if k != key}
    packed = b"".join(msgpack.packb(x) for item in m.items() for x in item)
    message = b"pose/a\0" + bytes([0x80 | len(m) + 1]) + packed + msgpack.packb(key) + shape * depth + b"\xc0"
    with memory_below(8 << 20):
        found = outcome([message])
    if key != "other":
        assert isinstance(found, WireError) and found.reason in ("msgpack", "version", f"field_{key}")


@pytest.mark.parametrize(
    "header",
    [b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9"],
    ids=["str32", "bin32", "array32", "map32", "ext32"],
)
@pytest.mark.parametrize("claim", [2**32 - 1, 2**31, 10**6])
def test_a_header_that_claims_what_is_not_there_costs_nothing(header: bytes, claim: int) -> None:
    for start in (b"pose/a\0", b"pose/a\0\x81\xa6joints", b"pose/a\0\x82\xa1v\x01\xa3ids"):
        with memory_below(1 << 20):
            found = outcome([start + header + claim.to_bytes(4, "big") + b"\0" * 40])
        assert isinstance(found, WireError) and found.reason == "msgpack"


def packed(**changes: Any) -> list[bytes]:
    return [b"pose/a\0" + msgpack.packb({**GOOD, **changes})]


def test_a_million_joints_are_refused_by_size_or_shape() -> None:
    flat = packed(joints=[0] * 10**6)
    with memory_below(64 << 20):
        found = outcome(flat, Limits())
    assert isinstance(found, WireError) and found.reason == "field_joints"
    blob = packed(joints=b"\0" * 12_000_000)
    with memory_below(13_000_000):  # one copy, made while the topic is cut off
        assert refused(blob).reason == "too_large"


def test_too_many_people_are_refused_before_their_joints_are_looked_at() -> None:
    found = outcome(packed(ids=list(range(257)), joints=b""))
    assert isinstance(found, WireError) and found.reason == "too_many_people"
    found = outcome(packed(ids=list(range(100_000)), joints=b""))
    assert isinstance(found, WireError) and found.reason == "too_many_people"


def test_an_oversized_body_is_refused_unread() -> None:
    for body in (b"\xc0" * (LIMITS.message_bytes + 1), b"\x91" * (LIMITS.message_bytes + 1)):
        with memory_below(1 << 16):
            found = refused([b"pose/a", body])
        assert found.reason == "too_large"


@pytest.mark.parametrize("key", ["seq", "ids", "joints", "visible", "size", "layout", "end", "v"])
def test_a_field_of_many_small_things_is_answered_in_few_words(key: str) -> None:
    """Without ever writing the whole value out: its text would be several times the message."""
    for filler in ([], {}, None, "ab"):
        message = packed(**{key: [filler] * 50_000})
        size = len(message[0])
        with memory_below(100 * size + (1 << 20)):
            error = refused(message)
        assert len(str(error)) < 300


def test_more_keys_than_any_version_has_are_refused() -> None:
    error = refused(packed(**{f"k{i}": 0 for i in range(100)}))
    assert error.reason == "msgpack" and "max_map_len" in str(error)


def test_keys_that_are_no_text_are_refused() -> None:
    for key in (1, None, 2.5, (1, 2)):
        assert refused([b"pose/a\0" + msgpack.packb({**GOOD, key: 1})]).reason == "msgpack"


def test_a_list_of_one_long_text_and_many_empty_ones_is_refused_before_it_becomes_an_array() -> None:
    people = 200
    m = {
        "v": 1,
        "seq": 0,
        "t": 1,
        "layout": "core15",
        "ids": list(range(people)),
        "joints": b"\0" * 180 * people,
        "c": 3,
    }
    m["visible"] = ["a" * 500_000] + [""] * 400_000
    with memory_below(64 << 20), pytest.raises(WireError, match="visible"):
        decode_pose([b"pose/x\0" + msgpack.packb(m)], Limits(message_bytes=4 << 20))
    for texts in ([[["1", "2", "3"]] * 15], [[[True, 1, 2]] * 15]):
        with pytest.raises(WireError, match="joints"):
            decode_pose([b"pose/x\0" + msgpack.packb({**m, "ids": [1], "joints": texts, "visible": None})], Limits())


SIGNALLING = np.array([0x7F800001], "<u4")  # a NaN that numpy warns of wherever it meets one


def test_no_value_makes_numpy_warn() -> None:
    """A warning would be printed with a line of our source, as if it were a fault of ours."""
    visible = np.full(15, 88, "<f4")
    visible[:1] = SIGNALLING.view("<f4")
    lists = msgpack.packb([[[0.5] * 3] * 15]).replace(msgpack.packb(0.5), b"\xcb\x7f\xf0" + bytes(5) + b"\1", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "reaches 88" in str(refused(packed(visible=visible.tobytes())))
        assert isinstance(outcome([packed(joints="HERE")[0].replace(msgpack.packb("HERE"), lists)]), PoseFrame)
