"""What comes in one drain: each person in their own window, whatever else the drain holds."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import pytest

from edge.events import Scores
from edge.ingest import arrivals
from edge.notices import Notices
from edge.wire import Limits, decode_pose, encode_pose

from ..harness import Bench, HeightEngine, bench, message, person, stand


def heard(b: Bench) -> dict[tuple[str, int], set[float]]:
    """The heights that each track's windows were judged at."""
    found: dict[tuple[str, int], set[float]] = {}
    for e in b.sink.events:
        if isinstance(e, Scores):
            for track, distance in zip(e.track, e.distance, strict=True):
                found.setdefault((e.stream, track), set()).add(round(distance, 3))
    return found


def test_a_camera_too_many_does_not_move_the_others_people() -> None:
    cameras = [stand(name, 3, {k: 0.1 * k}) for k, name in enumerate("abcd", 1)]
    messages = [m for ms in zip(*cameras, strict=True) for m in ms]
    b = bench(HeightEngine(), max_streams=2).play([*messages[-2:], *messages])
    assert heard(b) == {("c", 3): {0.3}, ("d", 4): {0.4}}, "the two that came first, the other two among them"
    assert b.runtime.windows.fate["streams_full"] == 2 * 72


def test_what_comes_behind_the_end_of_a_stream_is_its_own() -> None:
    first, other = stand("a", 3, {1: 0.1}), stand("b", 6, {2: 0.2})
    ended = message("a", len(first), 8.0, {1: person(0.1)}, end=True)
    again = stand("a", 3, {1: 0.4}, start=20.0)
    b = bench(HeightEngine()).play([*other[:70], *first, ended, *other[70:], *again])
    assert heard(b) == {("a", 1): {0.1, 0.4}, ("b", 2): {0.2}}
    assert not any(b.runtime.windows.fate.values()) and b.runtime.ledger.restarts == 0


def test_a_large_drain_is_written_in_parts_and_is_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = stand("a", 3, {i: 0.1 * i for i in range(5)})
    whole = bench(HeightEngine(64)).play(messages)
    monkeypatch.setattr(arrivals, "PEOPLE", 12)
    parts = bench(HeightEngine(64))
    sizes, push = [], parts.runtime.windows.push
    monkeypatch.setattr(parts.runtime.windows, "push", lambda s, *rest: (sizes.append(len(s)), push(s, *rest))[1])
    parts.play(messages)
    assert parts.sink.scores() == whole.sink.scores() and max(sizes) == 15, "three frames of five"


def test_lost_and_late_messages_are_told_apart_in_words() -> None:
    said = io.StringIO()
    b = bench(HeightEngine())
    b.runtime._arrivals._notices = Notices(said)
    frames = stand("a", 1, {1: 0.1})
    b.play([frames[0], frames[3], frames[2]])
    assert "stream a: 2 messages lost before seq 3" in said.getvalue()
    assert "stream a: seq 2 arrived late; do two cameras share this name?" in said.getvalue()


def test_each_streams_losses_and_lateness_are_said() -> None:
    b = bench(HeightEngine())
    for name in "ab":
        frames = stand(name, 1, {1: 0.1})
        b.play([frames[0], frames[3], frames[2]])
    for name in "ab":
        assert f"stream {name}: 2 messages lost before seq 3" in b.told.getvalue()
        assert f"stream {name}: seq 2 arrived late" in b.told.getvalue()


def test_a_lack_of_room_is_said_when_somebody_found_none_and_not_ever_after() -> None:
    b = bench(HeightEngine(), max_tracks=2)
    said: list[str] = []
    b.runtime._arrivals._notices.say = lambda text, key: said.append(text)  # type: ignore[method-assign]
    b.play([message("a", 0, 1, dict.fromkeys(range(3), person()))])
    assert said == ["no room for another track: max_tracks is 2"]
    b.play([message("a", 1, 1.1, dict.fromkeys(range(2), person()))])
    assert len(said) == 1


def flat(data: bytes, sized: bool = True) -> bytes:
    """The same pose in 2-D."""
    f = decode_pose([data], Limits())
    return encode_pose(replace(f, joints=f.joints[..., :2].copy(), size=(640.0, 480.0) if sized else None))


def test_a_stream_that_mixes_kinds_of_poses_is_told_of_and_not_judged_by_both_together() -> None:
    said = io.StringIO()
    b = bench(HeightEngine())
    b.runtime._arrivals._notices = Notices(said)
    frames, other = stand("a", 6, {1: 5.0}), stand("b", 6, {2: 0.2})
    mixed = [flat(m) if k % 3 == 0 else m for k, m in enumerate(frames)]
    b.play([m for pair in zip(mixed, other, strict=True) for m in pair])
    assert heard(b) == {("b", 2): {0.2}} and b.sink.alerts() == []
    assert b.runtime.windows.fate["mixed"] == 2 * 144 // 3 - 1
    assert (
        "stream a: its poses were core15, c 2, with size, and now are core15, c 3, so its tracks begin"
        in said.getvalue()
    )


def test_a_size_that_nothing_is_divided_by_mixes_nothing() -> None:
    frames = stand("a", 4, {1: 0.2})
    sized = [encode_pose(replace(decode_pose([m], Limits()), size=(640.0, 480.0))) for m in frames[::10]]
    messages = [sized[k // 10] if k % 10 == 0 else m for k, m in enumerate(frames)]
    b = bench(HeightEngine()).play(messages)
    assert heard(b) == {("a", 1): {0.2}} and not any(b.runtime.windows.fate.values())


def test_a_stream_that_goes_on_in_another_kind_begins_anew_once() -> None:
    frames = stand("a", 12, {1: 5.0})
    empty = message("a", 144, 5 + 144 / 24, {})
    b = bench(HeightEngine()).play([*frames[:144], empty, *(flat(m, sized=False) for m in frames[145:])])
    assert b.runtime.windows.fate["mixed"] == 1 and b.runtime.ledger.lost == 0
    assert next((a.type, a.reason) for a in b.sink.alerts() if a.type == "end") == ("end", "the track is gone")
    ends = sorted(end for e in b.sink.events if isinstance(e, Scores) for end in e.end)
    assert 2e9 < max(b - a for a, b in pairwise(ends)) < 2.5e9, "a window's length without any"
