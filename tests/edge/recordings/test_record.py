"""Recording, playing, and cutting a clip out of what was seen: in memory, against the frames that went in."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from edge.errors import HaadError, RecordingError, SupportError
from edge.ingest.source import ZmqSource
from edge.ingest.tap import LOOK_S, Tap
from edge.motion import make_motion
from edge.network.endpoint import Endpoint
from edge.recordings.record import Recorder, paced, replay, stamped
from edge.recordings.recording import MAGIC, Recorded, read, write
from edge.settings import Settings
from edge.skeleton import get_layout
from edge.support.snippet import from_live, from_recording
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose, join
from tests.edge.harness import FakeClock, HeightEngine, MemorySource, bench, message, person

SECOND = 10**9


class Feeding(MemorySource):
    """One message of `queue` each 0.1 s of the clock."""

    def receive(self, timeout: float) -> list[list[bytes]]:
        self.clock.now += 0.1
        return [self.queue.pop(0)] if self.queue else []


told: list[str] = []
"""What recorders say while they wait."""


def without_time(stream: str, seq: int) -> bytes:
    blob = np.zeros((1, 15, 3), "<f4").tobytes()
    return join(f"pose/{stream}", {"v": 1, "seq": seq, "layout": "core15", "ids": [1], "joints": blob, "c": 3})


def record(path: Path, queue: list[list[bytes]], stream: str = "", **options: object) -> tuple[Recorder, str]:
    clock = FakeClock()
    with write(path) as file:
        recorder = Recorder(file, stream, told.append)
        given = {"seconds": 100.0, "wait": 5.0, "most": 1 << 20, **options}
        why = recorder.run(Feeding(clock, queue), clock=clock, wall=lambda: round(clock.now * SECOND), **given)  # type: ignore[arg-type]
    return recorder, why


def test_what_comes_is_kept_with_its_arrival_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    sent = [[message("a", k, k, {1: person()})] for k in (0, 1, 4)] + [[b"pose/b", message("b", 0, 0, {})[7:]]]
    recorder, why = record(tmp_path / "r", [*sent, [b"rubbish"], [b"pose/a\0rubbish"]])
    assert [m for _, m in read(tmp_path / "r")] == [*(p[0] for p in sent[:3]), message("b", 0, 0, {})]
    arrivals = [t for t, _ in read(tmp_path / "r")]
    assert np.diff(arrivals) / SECOND == pytest.approx([0.1] * 3)
    assert (recorder.ledger.lost, recorder.foreign, sorted(recorder.streams)) == (2, 2, ["a", "b"])
    assert why == "the time set by --seconds is over"


def test_who_waits_in_vain_is_told_once_what_to_do(tmp_path: Path) -> None:
    told.clear()
    record(tmp_path / "1", [[b"rubbish"]] * 90 + [[message("a", 0, 0, {1: person()})]], wait=None)
    assert told == []
    record(tmp_path / "2", [[b"rubbish"]] * 300 + [[message("a", 0, 0, {1: person()})]], wait=None)
    assert len(told) == 1 and "no message has come for 10 s" in told[0] and "--poses-out" in told[0]


def test_one_stream_a_time_and_a_size_bound_it(tmp_path: Path) -> None:
    both = [[message(s, k, k, {1: person()})] for k in range(40) for s in ("a", "ab")]
    record(tmp_path / "1", both[:], "a", seconds=2.05)
    assert len(list(read(tmp_path / "1"))) == 11
    assert all(m.startswith(b"pose/a\0") for _, m in read(tmp_path / "1"))
    _, why = record(tmp_path / "2", both[:], most=3000)
    assert "max-mib" in why and 2000 < (tmp_path / "2").stat().st_size <= 3000
    with pytest.raises(RecordingError, match="no message came within 5 s"):
        record(tmp_path / "3", [])


def test_a_message_without_a_time_gets_that_of_its_arrival_and_no_other_changes() -> None:
    timed = message("a", 0, 5, {1: person()})
    assert stamped(Recorded(9, timed)) == timed
    assert stamped(Recorded(9, b"pose/a\0rubbish")) == b"pose/a\0rubbish"
    frame = decode_pose([stamped(Recorded(9, without_time("a", 3)))], Limits())
    assert (frame.t, frame.seq, frame.stamped, frame.stream) == (9, 3, True, "a")
    body = msgpack.unpackb(stamped(Recorded(9, without_time("a", 3))).partition(b"\0")[2])
    assert {k: v for k, v in body.items() if k != "t"} == msgpack.unpackb(without_time("a", 3).partition(b"\0")[2])


@pytest.mark.parametrize(("speed", "lasts"), [(1, 4.0), (2, 2.0), (0, 0.0)])
def test_the_pace_is_that_of_the_arrivals(tmp_path: Path, speed: float, lasts: float) -> None:
    with write(tmp_path / "r") as f:
        for at in (100, 101, 99, 104):
            f.add([message("a", 0, 0, {})], at * SECOND)
    clock = FakeClock(0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    assert len(list(paced(read(tmp_path / "r"), speed, clock=clock, sleep=sleep))) == 4
    assert clock.now == pytest.approx(lasts)


def test_a_pushed_recording_arrives_whole_and_nobody_there_is_said(tmp_path: Path) -> None:
    sent = [message("a", k, k, {1: person()}) for k in range(3000)]
    with write(tmp_path / "r") as f:
        for k, m in enumerate(sent):
            f.add([m], k)
    with pytest.raises(HaadError, match="nobody listens"):
        replay(read(tmp_path / "r"), f"push+connect:ipc://{tmp_path}/in", wait=0.05)
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.set_hwm(10)
        address = f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}"
        thread = threading.Thread(
            target=replay, args=(read(tmp_path / "r"), f"push+connect:{address}"), kwargs={"speed": 0}
        )
        thread.start()
        got = []
        while len(got) < len(sent) and pull.poll(10_000):
            got.append(pull.recv())
        thread.join(10)
    assert got == sent


def test_at_the_pace_of_the_world_a_recording_keeps_time_and_is_played_as_long(tmp_path: Path) -> None:
    sent, every = [message("a", k, k / 20, {1: person()}) for k in range(24)], 0.05
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    source = ZmqSource(context, [Endpoint.parse(f"pull+bind:ipc://{tmp_path}/a")], 100)

    def film() -> None:
        with context.socket(zmq.PUSH) as push:
            push.connect(f"ipc://{tmp_path}/a")
            began = time.monotonic()
            for k, m in enumerate(sent):
                time.sleep(max(0.0, began + k * every - time.monotonic()))
                push.send(m)

    def heard(path: Path) -> tuple[list[bytes], list[float]]:
        with write(path) as file:
            Recorder(file).run(source, seconds=every * len(sent) + 0.2, wait=20, most=1 << 20)
        items = list(read(path))
        return [i.message for i in items], [(i.arrival - items[0].arrival) / SECOND for i in items]

    camera = threading.Thread(target=film)
    camera.start()
    first, at = heard(tmp_path / "1")
    camera.join()
    again = threading.Thread(target=replay, args=(read(tmp_path / "1"), f"push+connect:ipc://{tmp_path}/a"))
    again.start()
    second, later = heard(tmp_path / "2")
    again.join()
    source.close()
    context.term()
    assert first == second == sent
    # A busy machine may be late now and then, and never early.
    for times in (at, later):
        assert np.median(np.abs(np.diff(times) - every)) < 0.03 and times[-1] == pytest.approx(23 * every, abs=0.25)


def test_the_tap_passes_on_what_was_accepted_only_while_somebody_listens() -> None:
    b = bench(HeightEngine())

    class Out:
        sent: list[bytes] = []  # noqa: RUF012
        looks, there = 0, False

        def send(self, message: bytes) -> None:
            self.sent.append(message)

        def newcomers(self) -> bool:
            self.looks += 1
            return False

        def wanted(self, topic: bytes) -> bool:
            return self.there and topic == b"pose/"

        def close(self) -> None: ...

    out = Out()
    b.runtime._tap = Tap(out)
    first = [message("a", k, k / 24, {1: person()}) for k in range(50)]
    b.play(first, chunk=1)
    assert out.sent == [] and out.looks == 1, "within a moment it asks once"
    out.there = True
    b.clock.now += 2 * LOOK_S
    two_parts = message("a", 50, 3, {1: person()}).split(b"\0", 1)
    b.play([first[0], b"pose/a\0rubbish", two_parts])
    assert out.sent == [first[0], b"\0".join(two_parts)]


# ---- clips -------------------------------------------------------------------------------------------------------


def tape(path: Path, fps: float = 30, seconds: float = 8) -> Path:
    """Two people: track 1 walks, track 2 waves from the third second on; stamped from 1000 s, arriving 7 s later."""
    one, two = (make_motion(n, seconds=seconds, fps=fps, seed=3).joints for n in ("walk", "wave"))
    with write(path) as f:
        for k in range(len(one)):
            t = 1000 + k / fps
            people = {1: one[k], 2: two[k]} if k >= 3 * fps else {1: one[k]}
            f.add([message("cam", k, t, people)], round((t + 7) * SECOND))
            f.add([b"pose/cam\0rubbish"], round((t + 7) * SECOND))
    return path


@pytest.mark.parametrize(("at", "begin", "end"), [(None, 5, 8), (2.0, 2, 5), (-4.0, 4, 7), (7.0, 7, 8)])
def test_a_clip_is_the_tracks_own_movement_at_that_time(
    tmp_path: Path, at: float | None, begin: float, end: float
) -> None:
    reader = read(tape(tmp_path / "r"))
    who, clip = from_recording(reader, "cam", 1, at, 3.0, Settings())
    walked = make_motion("walk", seconds=8, fps=30, seed=3).joints
    assert who == ("cam", 1) and clip.fps == pytest.approx(30, rel=1e-3)
    assert clip.seconds == pytest.approx(min(end, (len(walked) - 1) / 30) - begin, abs=0.05)
    np.testing.assert_allclose(clip.joints, walked[round(begin * 30) :][: len(clip.joints)], atol=0.01)
    assert (clip.visible == 1).all() and '"track": 1' in clip.source and clip.subject == "cam/1"


def test_an_uneven_stream_is_put_on_even_steps(tmp_path: Path) -> None:
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, 120)
    with write(tmp_path / "r") as f:
        for k, j in enumerate(jitter):
            t = 10 + k / 20 + j
            f.add([message("c", k, t, {1: person(t)})], k * SECOND // 20)
    clip = from_recording(read(tmp_path / "r"), "", None, None, 99, Settings())[1]
    steps = np.diff(clip.joints[:, 0, 1])
    np.testing.assert_allclose(steps, 1 / clip.fps, atol=1e-4)


def test_thirty_frames_are_a_second(tmp_path: Path) -> None:
    """The least that can be asked for is enough, wherever the second begins between two frames."""
    for at in (0.0, 0.31, 0.99):
        with write(tmp_path / f"r{at}") as f:
            for k in range(90):
                f.add([message("c", k, 10 + k / 30, {1: person(k / 90)})], k * SECOND // 30)
        clip = from_recording(read(tmp_path / f"r{at}"), "", None, at, 1.0, Settings())[1]
        assert len(clip.joints) == pytest.approx(30, abs=1)


def test_who_cannot_be_an_example_is_said(tmp_path: Path) -> None:
    reader, s = read(tape(tmp_path / "r")), Settings()
    for stream, track, at, seconds, said in (
        ("cam", None, None, 3.0, r"several people.*cam track 1 \(3.0 s\), cam track 2 \(3.0 s\)"),
        ("cam", 9, None, 3.0, "no such person was seen: in view were cam track "),
        ("other", None, None, 3.0, "no such person was seen: in view were cam track "),
        ("cam", 2, 1.0, 2.5, "seen for only 0.5 s"),
        ("cam", 1, 0.0, 0.9, "seen for only 0.9 s.*at least 1 s"),
        ("", 2, 0.0, 2.0, r"at 0 s: not in view then: cam track 2 is from 3\.0 to 8\.0 s → name such a time: --at"),
        ("cam", 1, 99.0, 3.0, "there is nothing at 99 s"),
        ("cam", 1, -99.0, 3.0, "there is nothing at -99 s"),
    ):
        with pytest.raises(SupportError, match=said):
            from_recording(reader, stream, track, at, seconds, s)
    assert from_recording(reader, "", None, 0.0, 2.5, s)[0] == ("cam", 1), "the only one need not be named"
    (tmp_path / "empty").write_bytes(MAGIC)
    with pytest.raises(SupportError, match="empty"):
        from_recording(read(tmp_path / "empty"), "", None, None, 3, s)
    hidden = np.zeros((1, 15), np.float32)
    hidden[0, :3] = 1
    with write(tmp_path / "hidden") as f:
        for k in range(60):
            f.add([message("c", k, k / 20, {1: person()}, visible=hidden)], k)
    with pytest.raises(SupportError, match="only 20% of the joints"):
        from_recording(read(tmp_path / "hidden"), "", None, 0.0, 9, s)


def test_the_longest_run_without_a_gap_is_taken_and_arrival_dates_what_has_no_time(tmp_path: Path) -> None:
    with write(tmp_path / "r") as f:
        for k in range(100):
            if not 20 <= k < 40:
                frame = PoseFrame("c", k, 0, get_layout("core15"), np.array([1]), person(k)[None])
                body = msgpack.unpackb(encode_pose(frame).partition(b"\0")[2])
                del body["t"]
                f.add([join("pose/c", body)], k * SECOND // 20)
    clip = from_recording(read(tmp_path / "r"), "", None, 0.0, 9, Settings())[1]
    np.testing.assert_allclose(clip.joints[:, 0, 1], np.arange(40, 100), atol=1e-3)


def test_live_takes_the_next_seconds_of_who_is_asked_for() -> None:
    clock = FakeClock()
    queue = [[message("cam1", k, k / 10, {4: person(k)} if k >= 20 else {3: person(0)})] for k in range(90)]
    queue[0:0] = [[message("cam10", 0, 0, {4: person(77)})]]
    source = Feeding(clock, queue)
    who, clip = from_live(source, "cam1", 4, 3.0, 9.0, Settings(), clock=clock, wall=lambda: 0)
    assert who == ("cam1", 4) and clip.fps == pytest.approx(10, rel=1e-3)
    np.testing.assert_allclose(clip.joints[:, 0, 1], 20 + np.arange(31), atol=0.05)


def test_who_is_not_seen_live_is_told_who_is() -> None:
    clock = FakeClock()
    some = [[message("cam10", 0, 0, {4: person(77)})], [message("cam1", 0, 0, {3: person(0), 12: person(0)})]]
    nobody = [[message("cam1", 0, 0, {})]]
    for queue, stream, track, said in (
        (some, "cam1", 9, "track 9 was not seen within 2 s: the tracks in view are 3, 12 → --track with one of these"),
        (some, "no", None, "no: nobody was seen within 2 s: messages come only from cam1, cam10 → --from-stream with"),
        (nobody, "cam1", None, "its messages show no people"),
        ([], "cam1", None, "no message of any stream came → start the engine with --poses-out"),
    ):
        with pytest.raises(SupportError, match=said):
            from_live(Feeding(clock, [*queue]), stream, track, 3.0, 2.0, Settings(), clock=clock, wall=lambda: 0)
