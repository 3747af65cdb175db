"""The made cameras: deterministic, valid, and like a site."""

from __future__ import annotations

from collections import defaultdict

import msgpack
import numpy as np
import pytest

from edge.bench.traffic import FIRST, JITTER_PX, Load, Trace, cameras, recorded, schedule
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose

LOAD = Load(cameras=3, people=2, fps=20, passers=0.5, stay=5.0)


def decoded(load: Load, seconds: float) -> list[PoseFrame]:
    return [decode_pose([m], Limits()) for m in recorded(cameras(load, seconds=6.0), seconds)]


def test_the_same_seed_sends_the_same_and_another_does_not() -> None:
    first, again = (recorded(cameras(LOAD, seconds=6.0), 2) for _ in range(2))
    assert first == again
    other = recorded(cameras(Load(3, 2, 20, 0.5, seed=1, stay=5.0), seconds=6.0), 2)
    assert not set(first) & set(other)


def test_messages_are_what_the_client_would_send() -> None:
    for message in recorded(cameras(LOAD, seconds=6.0), 2):
        body = msgpack.unpackb(message.partition(b"\0")[2])
        frame = decode_pose([message], Limits())
        width, height = body["size"]
        assert (width, height) == (1920, 1080) and body["c"] == 2 and body["layout"] == "coco17"
        same = PoseFrame(
            frame.stream, frame.seq, frame.t, frame.layout, frame.ids, frame.joints, frame.visible, (width, height)
        )
        assert encode_pose(same) == message


def test_rates_order_and_sequence() -> None:
    frames = decoded(LOAD, 10.0)
    assert [f.t for f in frames] == sorted(f.t for f in frames)
    by_stream = defaultdict(list)
    for f in frames:
        by_stream[f.stream].append(f)
    assert len(by_stream) == LOAD.cameras
    phases = set()
    for found in by_stream.values():
        assert [f.seq - FIRST for f in found] == list(range(len(found)))
        steps = np.diff([f.t for f in found]) / 1e9
        assert steps == pytest.approx(1 / LOAD.fps, rel=0.0021)
        phases.add(found[0].t // 10**6)
    assert len(phases) == LOAD.cameras and len(frames) == pytest.approx(10 * LOAD.messages, rel=0.01)


def test_people_come_and_go_and_an_id_never_returns() -> None:
    """Over several rounds: an id that was away for longer than a tracker loses somebody does not come back."""
    frames = [f for f in decoded(LOAD, 40.0) if f.stream == "cam00000"]
    last: dict[int, int] = {}
    for k, f in enumerate(frames):
        for track in f.ids.tolist():
            assert k - last.get(track, k) <= 20, "an id came back"
            last[track] = k
    counts = np.array([len(f.ids) for f in frames])
    assert len(last) > 2 * LOAD.people + 4 and counts.max() <= LOAD.people + 1
    assert LOAD.people < counts.mean() < LOAD.people + 0.7 and (counts < LOAD.people).any()


def test_nobody_leaves_where_everybody_stays() -> None:
    frames = decoded(Load(cameras=1, people=3, fps=20, passers=0, stay=1e9), 20.0)
    assert {i for f in frames for i in f.ids.tolist()} == set(range(FIRST, FIRST + 3))


def test_joints_are_hidden_shake_and_move() -> None:
    frames = decoded(Load(cameras=4, people=4, passers=0), 6.0)
    visible = np.concatenate([f.visible for f in frames])  # type: ignore[misc]
    assert 0.005 < (visible < 0.3).mean() < 0.2
    tracks = defaultdict(list)
    for f in frames:
        for track, joints in zip(f.ids.tolist(), f.joints, strict=True):
            tracks[f.stream, track].append(joints)
    long = [np.array(t) for t in tracks.values() if len(t) > 100]
    # Second differences are mostly jitter: of independent noise σ they have √6 σ, and a median size of 0.6745 of that.
    jitter = np.median([np.median(np.abs(np.diff(t, 2, axis=0))) for t in long]) / 0.6745 / 6**0.5
    assert jitter == pytest.approx(JITTER_PX, rel=0.35)
    assert all((np.ptp(t, axis=0) > 15).any() for t in long)


def test_a_schedule_in_pieces_is_the_schedule() -> None:
    seen = cameras(LOAD, seconds=6.0)
    whole, who = schedule(seen, 3.0)
    parts = [schedule(seen, 0.5, 0.5 * k) for k in range(6)]
    assert np.concatenate([t for t, _ in parts]) == pytest.approx(whole)
    assert (np.concatenate([c for _, c in parts]) == who).all()


def test_an_empty_frame_is_valid() -> None:
    trace = Trace(Load(cameras=1, people=1, fps=10, passers=0), 0, 2.0)
    trace.bodies = [trace._body(0, [], set())]
    frame = decode_pose([b"pose/a\0" + trace.bodies[0].data], Limits())
    assert len(frame.ids) == 0
