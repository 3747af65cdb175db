"""What an integrator imports, over real ipc sockets: numbering, handshakes, and misses that are counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from edge.client import AlertSubscriber, PosePublisher
from edge.errors import ClipError, HaadError, SettingsError, WireError
from edge.events import Alert, Event, Provenance, Scores, Status, encode_event
from edge.ingest.source import Ledger, ZmqSource
from edge.network.endpoint import Endpoint
from edge.windows import Stream
from edge.wire import Limits, PoseFrame, decode_pose

Socket = zmq.Socket[bytes]
BY = Provenance("base-1", "onnx", "s1")
STATUS = Status(0, "r1", "online", "", 1.0, 0, 0, 0, 0, 0, 0, BY)
ALERT = Alert("i", "new", 0, "r1", "cam1", 5, 1, 2, 1.5, 1.5, "walk", ("head",), "unlike walk", BY)
SCORES = Scores(0, "r1", "cam1", [5], [2], [0.5], [0.1], ["walk"], BY)


@pytest.fixture
def context() -> Iterator[zmq.Context[Socket]]:
    with zmq.Context() as context:
        yield context
        context.destroy(0)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


class Engine:
    """The engine's publishing end, with the answer that it gives to newcomers left to the test."""

    def __init__(self, context: zmq.Context[Socket], address: str) -> None:
        self.socket = Endpoint.parse(f"pub+bind:{address}").open(context, hwm=1000)

    def subscribed(self, count: int = 1) -> list[bytes]:
        """The topics of the next `count` subscriptions."""
        topics = []
        for _ in range(count):
            assert self.socket.poll(5000)
            topics.append(self.socket.recv())
        assert all(t[:1] == b"\1" for t in topics)
        return [t[1:] for t in topics]

    def publish(self, *events: Event) -> None:
        for event in events:
            self.socket.send(encode_event(event))


@pytest.fixture
def engine(context: zmq.Context[Socket], address: str) -> Engine:
    return Engine(context, address)


def hear(subscriber: AlertSubscriber, count: int) -> list[Event]:
    events = [subscriber.receive(5) for _ in range(count)]
    assert None not in events
    return [e for e in events if e is not None]


def listen(context: zmq.Context[Socket], endpoint: str, then: Callable[[], None], frames: int) -> list[PoseFrame]:
    """Open the engine's receiving end, run `then` beside it, and return the next `frames` frames."""
    source = ZmqSource(context, [Endpoint.parse(endpoint)], hwm=1000)
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            then()
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=guarded)
    thread.start()
    got: list[PoseFrame] = []
    for _ in range(200):
        got += [decode_pose(parts, Limits()) for parts in source.receive(0.05)]
        if len(got) >= frames or failed:
            break
    thread.join(10)
    source.close()
    assert not failed and not thread.is_alive()
    return got


@pytest.mark.parametrize(("mine", "engines"), [("pub+connect", "sub+bind"), ("push+connect", "pull+bind")])
def test_after_waiting_every_frame_arrives_in_order_and_whole(
    context: zmq.Context[Socket], address: str, mine: str, engines: str
) -> None:
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(20, 2, 17, 2)).astype(np.float32)
    confidence = rng.random((20, 2, 17)).astype(np.float32)

    def camera() -> None:
        with PosePublisher(f"{mine}:{address}", stream="cam1", layout="coco17") as publisher:
            publisher.wait(10)
            for i in range(20):
                publisher.send([3, 8], joints[i], visible=confidence[i], t=i * 10, size=(1920, 1080))
            publisher.end(t=999)
            assert publisher.seq == 21

    got = listen(context, f"{engines}:{address}", camera, 21)
    assert [f.seq for f in got] == list(range(21)) and {f.stream for f in got} == {"cam1"}
    for i, frame in enumerate(got[:20]):
        assert (frame.t, frame.ids.tolist(), frame.layout.name, frame.size) == (i * 10, [3, 8], "coco17", (1920, 1080))
        np.testing.assert_array_equal(frame.joints, joints[i])
        assert frame.visible is not None and not frame.end
        np.testing.assert_array_equal(frame.visible, confidence[i])
    assert got[20].end and got[20].t == 999 and len(got[20].ids) == 0
    ledger, stream = Ledger(), Stream("cam1")
    for frame in got:
        ledger.enter(stream, frame.seq)
    assert (ledger.frames, ledger.lost) == (21, 0)


def test_lists_and_nobody_in_view_can_be_sent_as_they_are(context: zmq.Context[Socket], address: str) -> None:
    def camera() -> None:
        with PosePublisher(f"push+connect:{address}", stream="a", layout="h36m17") as publisher:
            publisher.send([], [])
            publisher.send([], [], visible=[])
            publisher.send([1], [[[1.0, 2.0, 3.0]] * 17])

    empty, masked, one = listen(context, f"pull+bind:{address}", camera, 3)
    assert empty.joints.shape[:2] == masked.joints.shape[:2] == (0, 17) and empty.visible is None
    assert masked.visible is not None and masked.visible.shape == (0, 17)
    assert one.joints.shape == (1, 17, 3) and one.joints[0, 16].tolist() == [1, 2, 3]


def test_without_a_time_it_is_now(context: zmq.Context[Socket], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.client.publisher.time.time_ns", lambda: 1234)

    def camera() -> None:
        with PosePublisher(f"push+connect:{address}", stream="a") as publisher:
            publisher.send([], [])
            publisher.send([], [], t=0)

    assert [f.t for f in listen(context, f"pull+bind:{address}", camera, 2)] == [1234, 0]


@pytest.mark.parametrize("pattern", ["pub", "push"])
def test_waiting_where_nobody_listens_ends_with_what_to_do(address: str, pattern: str) -> None:
    with (
        PosePublisher(f"{pattern}+connect:{address}", stream="cam1") as publisher,
        pytest.raises(HaadError, match="nobody listens") as e,
    ):
        publisher.wait(0.02)
    assert address in str(e.value) and "haad-edge run" in str(e.value)


@pytest.mark.parametrize("seconds", [-1, float("-inf"), float("nan")])
def test_a_wait_of_no_time_is_over_at_once(address: str, seconds: float) -> None:
    with PosePublisher(f"pub+connect:{address}", stream="cam1") as camera, pytest.raises(HaadError, match="nobody"):
        camera.wait(seconds)


def test_a_publisher_that_cannot_be_made_says_why(address: str) -> None:
    with pytest.raises(ClipError, match="coco18"):
        PosePublisher(f"pub+connect:{address}", stream="a", layout="coco18")
    with pytest.raises(SettingsError, match="pub or push"):
        PosePublisher(f"sub+connect:{address}", stream="a")
    with pytest.raises(SettingsError, match="--allow-remote"):
        PosePublisher("pub+connect:tcp://192.0.2.1:5555", stream="a")
    with pytest.raises(SettingsError, match="cannot bind"):
        PosePublisher("pub+bind:ipc:///nonexistent/folder/s", stream="a")
    with pytest.raises(SettingsError, match=r"None is not understood.*for example pub"):
        PosePublisher(None, stream="a")  # type: ignore[arg-type]


def test_events_arrive_as_they_were_published_and_silence_ends_the_loop(engine: Engine, address: str) -> None:
    with AlertSubscriber(f"sub+connect:{address}", topics=("alert", "score", "status"), timeout=0.05) as subscriber:
        assert sorted(engine.subscribed(3)) == [b"alert/", b"score", b"status"]
        sent: list[Event] = [STATUS, ALERT, SCORES, replace(ALERT, seq=1, type="end")]
        engine.publish(*sent)
        assert hear(subscriber, 1) == sent[:1]
        assert list(subscriber) == sent[1:]
        assert subscriber.receive(0) is None and subscriber.missed == 0


def test_only_what_was_asked_for_arrives(engine: Engine, address: str) -> None:
    with AlertSubscriber(f"sub+connect:{address}", topics=["score/cam2"]) as subscriber:
        assert sorted(engine.subscribed(2)) == [b"score/cam2", b"status"]
        wanted = replace(SCORES, stream="cam2")
        engine.publish(STATUS, ALERT, SCORES, wanted)
        assert hear(subscriber, 1) == [wanted]


def test_missed_alerts_and_scores_are_counted(engine: Engine, address: str) -> None:
    """Alerts are numbered over all streams of a run, scores for each stream."""
    with AlertSubscriber(f"sub+connect:{address}", topics=["alert", "score", "status"]) as subscriber:
        engine.subscribed(3)
        steps: list[tuple[Event, int]] = [
            (replace(ALERT, seq=7), 0),  # the first that is heard: what came before was not meant for us
            (replace(ALERT, seq=8, stream="cam2"), 0),
            (replace(ALERT, seq=11), 2),
            (replace(SCORES, seq=4), 2),
            (replace(SCORES, seq=0, stream="cam2"), 2),
            (replace(SCORES, seq=5), 2),
            (replace(SCORES, seq=4, stream="cam2"), 5),
            (replace(STATUS, seq=3), 5),
            (replace(STATUS, seq=90), 5),  # a status is sent to newcomers too: no loss
            (replace(ALERT, seq=0, run="r2"), 5),  # a restarted engine counts anew
            (replace(ALERT, seq=2, run="r2"), 6),
        ]
        for event, missed in steps:
            engine.publish(event)
            assert hear(subscriber, 1) == [event]
            assert subscriber.missed == missed, event


def test_who_hears_one_streams_alerts_does_not_miss_the_others(engine: Engine, address: str) -> None:
    with AlertSubscriber(f"sub+connect:{address}", topics=["alert/cam1", "score/cam1"]) as subscriber:
        engine.subscribed(3)
        engine.publish(ALERT, replace(ALERT, seq=1, stream="cam2"), replace(ALERT, seq=2))
        assert [e.seq for e in hear(subscriber, 2)] == [0, 2] and subscriber.missed == 0
        engine.publish(SCORES, replace(SCORES, seq=3))
        hear(subscriber, 2)
        assert subscriber.missed == 2  # scores are numbered for each stream, so these can be told


def test_waiting_returns_the_engines_status(engine: Engine, address: str) -> None:
    with AlertSubscriber(f"sub+connect:{address}") as subscriber:
        assert sorted(engine.subscribed(2)) == [b"alert/", b"status"]
        engine.publish(ALERT, replace(STATUS, state="degraded"))
        assert subscriber.wait(5).state == "degraded"


def test_waiting_where_no_engine_is_ends_with_what_to_do(address: str) -> None:
    with AlertSubscriber(f"sub+connect:{address}") as subscriber, pytest.raises(HaadError, match="haad-edge run"):
        subscriber.wait(0.02)


def test_a_message_that_is_none_is_refused_and_the_next_one_heard(engine: Engine, address: str) -> None:
    with AlertSubscriber(f"sub+connect:{address}", topics=["alert"]) as subscriber:
        engine.subscribed(2)
        engine.socket.send(b"alert/cam1\0\x80")
        engine.publish(ALERT)
        with pytest.raises(WireError, match="'v' is None"):
            subscriber.receive(5)
        assert hear(subscriber, 1) == [ALERT]


def test_wrong_shapes_are_refused_before_they_are_sent(tmp_path: Path) -> None:
    with PosePublisher(f"pub+connect:ipc://{tmp_path}/x", stream="cam", layout="coco17") as camera:
        for joints, visible in (((1, 15, 2), None), ((2, 17, 2), None), ((1, 17, 4), None), ((1, 17, 2), (1, 15))):
            with pytest.raises(WireError, match=r"shape \("):
                camera.send([1], np.zeros(joints), visible=None if visible is None else np.zeros(visible))
        assert camera.seq == 0


ONE = np.zeros((1, 17, 2))


@pytest.mark.parametrize("stream", ["", "a\nb", "a\0b", "\udc80", "x" * 129])
def test_a_stream_name_that_the_engine_refuses_makes_no_publisher(address: str, stream: str) -> None:
    with pytest.raises(WireError, match="topic"):
        PosePublisher(f"pub+connect:{address}", stream=stream)


@pytest.mark.parametrize(
    ("ids", "joints", "more", "reason"),
    [
        ([7, 7], np.zeros((2, 17, 2)), {}, "field_ids"),
        ([1.7], ONE, {}, "field_ids"),
        (["7"], ONE, {}, "field_ids"),
        ([True], ONE, {}, "field_ids"),
        ([2**63], ONE, {}, "field_ids"),
        ([[1]], ONE, {}, "field_ids"),
        (range(257), np.zeros((257, 17, 2)), {}, "too_many_people"),
        ([], ONE, {}, "field_joints"),
        ([], [], {"visible": [[1.0] * 17]}, "field_visible"),
        ([1], "abc", {}, "field_joints"),
        ([1], [[[0, 0], [0]]], {}, "field_joints"),
        ([1], [[[10**400] * 2] * 17], {}, "field_joints"),
        ([1], {}, {}, "field_joints"),
        ([1], ONE, {"visible": "abc"}, "field_visible"),
        ([[1], [1, 2]], ONE, {}, "field_ids"),
        (1, ONE, {}, "field_ids"),
        (None, ONE, {}, "field_ids"),
        ("a", ONE, {}, "field_ids"),
        ([1], ONE, {"size": [[1], [1, 2]]}, "field_size"),
        ([1], ONE, {"size": "abc"}, "field_size"),
        ([1], ONE, {"t": -1}, "field_t"),
        ([1], ONE, {"t": 1.7e9}, "field_t"),
        ([1], ONE, {"t": 2**62}, "field_t"),
        ([1], ONE, {"t": 2**64}, "field_t"),
        ([1], ONE, {"t": -(2**64)}, "field_t"),
        ([1], ONE, {"size": (2**70, 480)}, "field_size"),
        ([1], ONE, {"size": (object(), 480)}, "field_size"),
        ([1], ONE, {"size": (0, 0)}, "field_size"),
        ([1], ONE, {"size": (640, 480, 3)}, "field_size"),
        ([1], ONE, {"size": 640}, "field_size"),
        ([1], np.zeros((1, 17, 3)), {"size": (640, 480)}, "field_joints"),
    ],
)
def test_what_the_engine_refuses_is_not_sent(
    address: str, ids: Any, joints: Any, more: dict[str, Any], reason: str
) -> None:
    with PosePublisher(f"pub+connect:{address}", stream="cam", layout="coco17") as camera:
        camera.send([1], ONE, t=0)
        with pytest.raises(WireError) as e:
            camera.send(ids, joints, **more)
        assert e.value.reason == reason and camera.seq == 1


def test_a_closed_publisher_says_that_it_is_closed(address: str) -> None:
    with PosePublisher(f"pub+connect:{address}", stream="cam", layout="coco17") as camera:
        camera.send([1], ONE)
    for use in (lambda: camera.send([1], ONE), camera.end, camera.wait):
        with pytest.raises(HaadError, match=r"cam: the publisher is closed.*PosePublisher"):
            use()
    camera.close()
    assert camera.seq == 1


def test_numbers_may_come_from_numpy(context: zmq.Context[Socket], address: str) -> None:
    ids: Any = np.arange(2, dtype=np.uint16)
    t: Any = np.int64(5)
    size: Any = np.array([640, 480])

    def camera() -> None:
        with PosePublisher(f"push+connect:{address}", stream="a", layout="coco17") as publisher:
            publisher.send(ids, np.zeros((2, 17, 2)), t=t, size=size)
            publisher.send([1], np.zeros((1, 17, 3)), t=6)  # 3-D, as far as anyone can know

    first, _ = listen(context, f"pull+bind:{address}", camera, 2)
    assert (first.t, first.ids.tolist(), first.size) == (5, [0, 1], (640, 480))


def test_an_engine_with_other_limits_can_be_sent_more(address: str) -> None:
    with PosePublisher(f"pub+connect:{address}", stream="a", limits=Limits(people=300)) as camera:
        camera.send(range(300), np.zeros((300, 15, 3)))
        assert camera.seq == 1
