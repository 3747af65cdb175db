"""Messages read many at a time against each read on its own."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import WireError
from edge.ingest.template import ALIKE, FREE, KNOWN, Many, Template, Templates
from edge.skeleton import LAYOUTS
from edge.wire import Limits, PoseFrame, encode_pose, pose_of

LIMITS = Limits()
RNG = np.random.default_rng(0)


def pose(ids: list[int], seq: int = 1000, t: int = 1 << 60, layout: str = "coco17", c: int = 2) -> PoseFrame:
    people, size = len(ids), LAYOUTS[layout].size
    joints = RNG.normal(300, 90, (people, size, c)).astype(np.float32)
    visible = RNG.random((people, size)).astype(np.float32)
    seen = visible if layout == "coco17" else None
    return PoseFrame("a", seq, t, LAYOUTS[layout], np.array(ids, np.int64), joints, seen, (640.0, 480.0))


def body(frame: PoseFrame) -> bytes:
    return encode_pose(frame).partition(b"\0")[2]


def raw(bodies: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)


def alone(data: bytes) -> PoseFrame | None:
    try:
        return pose_of("a", data, LIMITS)
    except WireError:
        return None


def assert_same(many: Many, k: int, frame: PoseFrame) -> None:
    people = len(frame.ids)
    part = slice(k * people, (k + 1) * people)
    assert (many.seq[k], many.t[k], many.ids[k].tolist()) == (frame.seq, frame.t, frame.ids.tolist())
    assert (many.like.layout, many.like.size, many.like.end) == (frame.layout, frame.size, frame.end)
    np.testing.assert_array_equal(many.joints[part], frame.joints)
    if frame.visible is None:
        assert many.visible is None
    else:
        assert many.visible is not None
        np.testing.assert_array_equal(many.visible[part], frame.visible)


IDS = [[], [5], [1, 2, 3], [7, 200, 300, 70_000, 1 << 40], list(range(20)), [1 << 16, (1 << 16) + 1, 3]]


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize(("layout", "c"), [("coco17", 2), ("core15", 3)])
def test_what_is_like_an_example_is_read_as_if_alone(ids: list[int], layout: str, c: int) -> None:
    sent = [pose([i + 20 * (k > 2) for i in ids], 1000 + k, (1 << 60) + k, layout, c) for k in range(5)]
    bodies = [body(f) for f in sent]
    template = Template(bodies[0], pose_of("a", bodies[0], LIMITS))
    like = template.matches(raw(bodies))
    many, good = template.read(raw(bodies)[like])
    assert like[:3].all() and good.all()
    for k, i in enumerate(np.flatnonzero(like).tolist()):
        assert_same(many, k, pose_of("a", bodies[i], LIMITS))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_is_read_otherwise_than_alone(data: st.DataObject) -> None:
    """Whatever bytes are changed: what a template says is good, `edge.wire` reads as the same."""
    ids = data.draw(st.sampled_from(IDS[1:]))
    example = body(pose(ids))
    template = Template(example, pose_of("a", example, LIMITS))
    end = example.index(b"\xa6joints") + 12  # most of what follows is numbers that may be anything
    damaged = bytearray(example)
    for at in data.draw(st.lists(st.integers(0, end) | st.integers(0, len(example) - 1), min_size=1, max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    found = raw([bytes(damaged)])
    frame = alone(bytes(damaged))
    if not template.matches(found)[0]:
        return
    many, good = template.read(found)
    assert bool(good[0]) == (frame is not None)
    if frame is not None:
        assert_same(many, 0, frame)


def test_values_that_are_refused_alone_are_not_good() -> None:
    example = body(pose([1 << 40, 1 << 41]))
    template = Template(example, pose_of("a", example, LIMITS))
    twice, large = (bytearray(example) for _ in range(2))
    at = example.index(b"\xa3ids") + 5
    twice[at : at + 9] = twice[at + 9 : at + 18]
    large[at + 1] = 0xFF
    late = body(replace(pose([1 << 40, 1 << 41]), t=(1 << 62) - 1))
    late = late.replace(b"\x3f" + b"\xff" * 7, b"\x40" + b"\0" * 7)
    percent = body(replace(pose([1 << 40, 1 << 41]), visible=np.full((2, 17), [0.5] * 16 + [88], np.float32)))
    bodies = [example, bytes(twice), bytes(large), late, percent]
    assert template.matches(raw(bodies)).all()
    assert template.read(raw(bodies))[1].tolist() == [True, False, False, False, False]
    assert [alone(b) is not None for b in bodies] == [True, False, False, False, False]


@pytest.mark.parametrize(
    "change",
    [
        {"joints": [[[1.0, 2.0]] * 17]},  # lists of lists
        {"t": None},  # of no time
        {"ids": [-3]},
        {"note": {"a": 1}},
        {"note": "x" * 2000},
    ],
)
def test_what_is_not_plain_is_no_example(change: dict[str, object]) -> None:
    m = msgpack.unpackb(body(pose([1]))) | change
    data = msgpack.packb(m)
    with pytest.raises(ValueError):
        Template(data, pose_of("a", data, LIMITS))


def test_examples_are_bounded_and_made_only_as_far_as_they_pay() -> None:
    templates = Templates()
    frames = [replace(pose(list(range(1, 1 + k))), end=bool(e)) for k in range(1, 200) for e in (0, 1)]
    learned = sum(templates.learn(body(f), f) for f in frames)
    assert learned == FREE + 1
    example = body(frames[0])
    read = sum(len(m.seq) for _, m in templates.read([example] * 10_000))
    assert read == 10_000
    for f in frames * 2:
        templates.learn(body(f), f)
    kept = templates._by_length.values()
    assert sum(map(len, kept)) <= KNOWN and max(map(len, kept)) <= ALIKE


def test_several_examples_of_one_length_share_the_bodies() -> None:
    templates = Templates()
    kinds = [pose([1, 300]), pose([300, 1]), pose([2, 3])]
    for f in kinds[:2]:
        assert templates.learn(body(f), f)
    bodies = [body(kinds[k % 2]) for k in range(9)]
    found = {int(i): many.ids[k].tolist() for at, many in templates.read(bodies) for k, i in enumerate(at)}
    assert found == {i: kinds[i % 2].ids.tolist() for i in range(9)}
    assert list(templates.read([body(kinds[2])] * 9)) == []
