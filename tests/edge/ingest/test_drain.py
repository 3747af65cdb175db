"""What a drain is decoded to, against each message decoded and mapped on its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edge.errors import WireError
from edge.ingest.drain import Decoder, Drain
from edge.skeleton import LAYOUTS
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose

KINDS = [("coco17", 2, True, (640.0, 480.0)), ("coco17", 2, True, None), ("core15", 3, False, None)]
KINDS += [("ntu25", 3, True, None), ("mediapipe33", 3, False, None)]


def frames(seed: int, bad: bool = False) -> list[PoseFrame]:
    """A drain: streams of several layouts and kinds, empty messages, some ends, each stream's `t` rising."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(120):
        s = int(rng.integers(7))
        name, c, confident, size = KINDS[s % len(KINDS)]
        layout, people = LAYOUTS[name], int(rng.integers(0, 3))
        joints = rng.normal(100, 50, (people, layout.size, c)).astype(np.float32)
        if bad and people and s == 2:
            joints[0, 3] = np.nan
        visible = rng.random((people, layout.size)).astype(np.float32) if confident else None
        ids = np.arange(people) + s
        out.append(PoseFrame(f"s{s}", k, k, layout, ids, joints, visible, size, end=k % 31 == 30))
    return out


def decode(messages: list[list[bytes]], refused: list[WireError] | None = None) -> Drain:
    decoder = Decoder(Limits(), 0.3, refused.append if refused is not None else pytest.fail, lambda: 77)
    decoder(messages[: len(messages) // 2])  # what was learned from others changes nothing
    if refused is not None:
        refused.clear()
    return decoder(messages)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bad", [False, True])
def test_every_message_is_as_if_alone_and_in_its_place(seed: int, bad: bool) -> None:
    messages = [[encode_pose(f)] for f in frames(seed, bad)]
    drain = decode(messages)
    assert drain.message == list(range(len(messages))) and len(drain) == len(messages)
    at = 0
    for i, parts in enumerate(messages):
        alone = decode_pose(parts, Limits())
        joints, visible, wrong = alone.core15(0.3)
        assert (drain.stream[i], drain.seq[i], drain.t[i]) == (alone.stream, alone.seq, alone.t)
        assert np.frombuffer(drain.ids[i], np.int64).tolist() == alone.ids.tolist()
        assert (drain.people[i], drain.first[i], i in drain.ends) == (len(alone.ids), at, alone.end)
        part = slice(at, at + len(alone.ids))
        np.testing.assert_allclose(drain.joints[part], joints, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(drain.visible[part], visible, atol=1e-6)
        assert drain.bad.get(i, 0) == wrong
        at += len(alone.ids)
    assert at == len(drain.joints) == len(drain.visible) and bool(drain.bad) == bad


def test_what_is_refused_leaves_the_others_in_order() -> None:
    good = frames(5, bad=True)
    messages = [[encode_pose(f)] for f in good]
    wrong = [[b"pose/x\0junk"], [b"pose/x\0\x81\xa1v\x02"], [b"\0"], [b"a", b"b", b"c"], [b"pose/\xff\0x"]]
    mixed = list(messages)
    for k, w in enumerate(wrong):
        mixed.insert(17 * k + 3, w)
    refused: list[WireError] = []
    drain = decode(mixed, refused)
    assert Counter(e.reason for e in refused) == {"msgpack": 1, "version": 1, "topic": 2, "parts": 1}
    assert drain.seq == [f.seq for f in good] and drain.ends == {i for i, f in enumerate(good) if f.end}
    assert [mixed[i] for i in drain.message] == messages
    same(drain, decode(messages))


def same(drain: Drain, other: Drain) -> None:
    for column in ("stream", "seq", "t", "ids", "first", "ends", "bad", "unstamped"):
        assert getattr(drain, column) == getattr(other, column), column
    for array in ("people", "joints", "visible"):
        np.testing.assert_array_equal(getattr(drain, array), getattr(other, array))


def test_a_value_out_of_range_among_many_alike_is_refused_by_its_name() -> None:
    layout = LAYOUTS["core15"]
    joints = np.ones((2, 15, 3), np.float32)
    made = [PoseFrame("a", 1 << 20, k + (1 << 61), layout, np.array([300, 301 + k]), joints) for k in range(20)]
    messages = [[encode_pose(f)] for f in made]
    twice = messages[7][0].replace(b"\xcd" + (308).to_bytes(2, "big"), b"\xcd" + (300).to_bytes(2, "big"))
    assert len(twice) == len(messages[0][0])
    messages[7] = [twice]
    refused: list[WireError] = []
    drain = decode(messages, refused)
    assert [e.reason for e in refused] == ["field_ids"] and "names a track twice" in str(refused[0])
    assert drain.t == [f.t for k, f in enumerate(made) if k != 7]


def test_messages_without_a_time_are_dated_on_arrival() -> None:
    import msgpack

    body = msgpack.packb({"v": 1, "seq": 1, "layout": "core15", "ids": [], "joints": b"", "c": 3})
    drain = decode([[b"pose/a\0" + body]] * 9)
    assert drain.t == [77] * 9 and drain.unstamped == 9


def test_nothing_drained_or_nobody_in_view() -> None:
    assert len(decode([])) == 0
    empty = PoseFrame("a", 0, 1, LAYOUTS["core15"], np.zeros(0, np.int64), np.zeros((0, 15, 3), np.float32))
    drain = decode([[encode_pose(empty)]] * 5)
    assert len(drain) == 5 and drain.joints.shape == (0, 15, 3) and drain.visible.shape == (0, 15) and not drain.bad


def alike(people: int, k: int, **changes: Any) -> PoseFrame:
    joints = np.full((people, 15, 3), 1.0 + k, np.float32)
    return PoseFrame(**{"stream": f"s{k}", "seq": 9, "t": k, "layout": LAYOUTS["core15"], "ids": np.arange(people),
                        "joints": joints, **changes})  # fmt: skip


def test_people_of_one_kind_in_messages_of_many_lengths_keep_their_places() -> None:
    made = [alike(1 + k % 3, k) for k in range(30)]
    drain = decode([[encode_pose(f)] for f in made])
    np.testing.assert_array_equal(drain.joints[:, 0, 0], np.repeat(1.0 + np.arange(30), [1, 2, 3] * 10))


def test_many_cameras_that_end_together_all_end() -> None:
    drain = decode([[encode_pose(alike(1, k, stream="abcdefghij"[k], end=True))] for k in range(10)])
    assert drain.ends == set(range(10)) and drain.unstamped == 0


def test_people_with_and_without_confidences_come_together() -> None:
    unsure = np.full((1, 15), 0.1, np.float32)
    drain = decode([[encode_pose(alike(1, k, visible=unsure if k % 2 else None))] for k in range(20)])
    np.testing.assert_array_equal(drain.visible, np.repeat([[1.0], [0.0]] * 10, 15, 1))


def test_joints_at_no_real_place_are_counted_over_all_people_of_a_message() -> None:
    frame = alike(3, 1)
    frame.joints[[0, 2], 5] = np.nan
    drain = decode([[encode_pose(alike(1, 0))], [encode_pose(frame)]])
    assert drain.bad == {1: 2} and drain.unstamped == 0


def test_names_without_end_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.ingest.drain.NAMES", 4)
    decoder = Decoder(Limits(), 0.3, pytest.fail)
    drain = decoder([[encode_pose(alike(1, k % 7))] for k in range(40)])
    assert len(decoder._names) <= 4 and drain.stream == [f"s{k % 7}" for k in range(40)]
