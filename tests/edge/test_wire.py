"""Messages: what is sent comes back bit by bit, and each broken field is refused by its name."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import WireError
from edge.events import Alert, Event, Provenance, Scores, Status, decode_event, encode_event
from edge.skeleton import CORE15, LAYOUTS
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose, join, split

LIMITS = Limits()
INT64 = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**62 - 1)
NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=20)
BY = Provenance("base-0123456789ab", "onnx 1.20 cpu", "3f2a")


@st.composite
def frames(draw: st.DrawFn) -> PoseFrame:
    layout = draw(st.sampled_from(list(LAYOUTS.values())))
    ids = draw(st.lists(INT64, max_size=8, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    joints = rng.normal(0, 100, (len(ids), layout.size, draw(st.sampled_from([2, 3])))).astype(np.float32)
    visible = rng.random(joints.shape[:2]).astype(np.float32) if draw(st.booleans()) else None
    size = draw(st.none() | st.just((1920.0, 1080.0)) | st.just((1.0, 0.5e6)))
    where = draw(NAMES), draw(COUNTS), draw(COUNTS)
    return PoseFrame(*where, layout, np.array(ids, np.int64), joints, visible, size, draw(st.booleans()))


def same(a: PoseFrame, b: PoseFrame) -> bool:
    """Equal to the last bit, types and shapes included."""
    plain = ("stream", "seq", "t", "layout", "size", "end")
    arrays = ("ids", "joints", "visible")
    return all(getattr(a, k) == getattr(b, k) for k in plain) and all(
        (x is None) == (y is None) and (x is None or (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()))
        for x, y in ((getattr(a, k), getattr(b, k)) for k in arrays)
    )


def body(**changes: Any) -> dict[str, Any]:
    """A good message of two people; None leaves a field out."""
    good = {
        "v": 1, "seq": 7, "t": 10**18, "layout": "coco17", "ids": [4, -1],
        "joints": np.arange(68, dtype="<f4").tobytes(), "c": 2, **changes,
    }  # fmt: skip
    return {k: v for k, v in good.items() if v is not None}


def refused(parts: list[bytes], limits: Limits = LIMITS) -> WireError:
    with pytest.raises(WireError) as e:
        decode_pose(parts, limits)
    return e.value


@settings(derandomize=True, max_examples=120, deadline=None)
@given(frames())
def test_a_pose_frame_comes_back_as_it_was_sent(frame: PoseFrame) -> None:
    message = encode_pose(frame)
    assert same(decode_pose([message], LIMITS), frame)
    topic, _, rest = message.partition(b"\0")
    assert topic == f"pose/{frame.stream}".encode()
    assert same(decode_pose([topic, rest], LIMITS), frame)
    assert same(decode_pose([topic + b"\0", rest], LIMITS), frame)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(frames(), st.booleans())
def test_nested_lists_and_blobs_give_equal_frames(frame: PoseFrame, say_c: bool) -> None:
    topic, packed = split([encode_pose(frame)])
    m = msgpack.unpackb(packed)
    m["joints"] = frame.joints.tolist()
    if frame.visible is not None:
        m["visible"] = frame.visible.tolist()
    if not say_c and len(frame.ids):
        del m["c"]  # lists show it themselves
    assert same(decode_pose([topic, msgpack.packb(m)], LIMITS), frame)


def test_a_golden_message_is_read_to_the_letter() -> None:
    """Bytes written by hand from the contract, not by this program's encoder."""
    blob = np.arange(34, dtype="<f4").tobytes()
    message = (
        b"pose/cam 1\0\x88\xa1v\x01\xa3seq\x2a\xa1t\xcf\x0d\xe0\xb6\xb3\xa7\x64\x00\x00\xa6layout\xa6coco17"
        b"\xa3ids\x91\x05\xa1c\x02\xa4size\x92\xcd\x02\x80\xcd\x01\xe0\xa6joints\xc4\x88" + blob
    )
    frame = decode_pose([message], LIMITS)
    assert (frame.stream, frame.seq, frame.t, frame.layout.name) == ("cam 1", 42, 10**18, "coco17")
    assert frame.ids.tolist() == [5] and frame.size == (640.0, 480.0) and not frame.end
    assert frame.joints.shape == (1, 17, 2) and frame.joints[0, 9].tolist() == [18, 19] and frame.visible is None


def test_core15_turns_pixels_upright_and_masks_what_is_no_place() -> None:
    joints = np.full((1, 17, 2), 100.0, np.float32)
    joints[0, 9] = 540, 0  # the left wrist at the top of the image
    joints[0, 10] = np.nan, 5
    confidence = np.full((1, 17), 0.9, np.float32)
    confidence[0, 5] = 0.2
    frame = PoseFrame("a", 0, 0, LAYOUTS["coco17"], np.array([1]), joints, confidence, (1920.0, 1080.0))
    core, visible, bad = frame.core15(0.3)
    seen = dict(zip(CORE15, visible[0], strict=True))
    np.testing.assert_allclose(core[0, CORE15.index("l_wrist")], [0.5, 1, 0])
    assert bad == 1 and seen["r_wrist"] == seen["l_shoulder"] == seen["neck"] == 0 and seen["l_wrist"] == 1
    assert (core[0, CORE15.index("r_wrist")] == 0).all()


@pytest.mark.parametrize("changes", [{"joints": b""}, {"joints": None}, {"joints": []}, {"joints": [], "c": None}])
def test_nobody_in_view_is_a_message_too(changes: dict[str, Any]) -> None:
    frame = decode_pose([join("pose/a", body(ids=[], **changes))], LIMITS)
    assert frame.joints.shape in ((0, 17, 2), (0, 17, 3)) and len(frame.ids) == 0


def test_an_end_needs_neither_layout_nor_people() -> None:
    frame = decode_pose([join("pose/a", {"v": 1, "seq": 3, "t": 9, "end": True})], LIMITS)
    assert frame.end and frame.seq == 3 and len(frame.ids) == 0


def test_unknown_fields_are_ignored() -> None:
    frame = decode_pose([join("pose/a", body(camera={"lens": "wide"}, note=b"\xff", w=None))], LIMITS)
    assert same(frame, decode_pose([join("pose/a", body())], LIMITS))


def test_an_extension_type_is_refused_wherever_it_is() -> None:
    for odd in (msgpack.ExtType(5, b"x"), msgpack.Timestamp(1)):
        assert refused([join("pose/a", body(note=odd))]).reason == "msgpack"


def test_joints_of_nobody_are_refused_for_the_ids_that_lack() -> None:
    assert refused([join("pose/a", body(ids=None))]).reason == "field_ids"


DEEP: Any = None
for _ in range(400):
    DEEP = [DEEP]

WRONG: list[tuple[str, Any]] = [
    *(("seq", x) for x in (None, -1, 2**62, 2**63, 1.0, "1", True, DEEP)),
    *(("t", x) for x in (-1, 2**64 - 1, 1e18, b"1", False, DEEP)),
    *(("end", x) for x in (1, 0, "yes", [], DEEP)),
    *(("layout", x) for x in (None, "coco18", 17, ["coco17"], {}, b"coco17", DEEP)),
    *(("ids", x) for x in (5, "ab", [1.0, 2], [True, 2], [1, 2**63], [3, 3], {}, b"\1\2", DEEP)),
    *(("c", x) for x in (None, 0, 1, 4, -2, 2**40, 2.0, True, "2", DEEP)),
    *(("joints", x) for x in (b"", b"\0" * 271, b"\0" * 273, 5, "ab", {}, [], [[]], [[1, 2]], [[["x"] * 2] * 17] * 2)),
    ("joints", [[[1.0, 2.0]] * 17]),
    ("joints", [[[1.0, 2.0]] * 17, [[1.0, 2.0]] * 16]),
    ("joints", [[[10**400 // 10**382, {}]] * 17] * 2),
    ("joints", DEEP),
    *(("visible", x) for x in (b"", b"\0" * 135, 1, "ab", {}, [], [1.0] * 34, [["x"] * 17] * 2, DEEP)),
    *(("size", x) for x in (5, [], [640], [640, 480, 3], [0, 480], [640, -1], [1e7, 480], ["640", "480"], DEEP)),
    *(("visible", np.full((2, 17), x, "<f4").tobytes()) for x in (93, float("inf"))),
    ("size", [float("nan"), 480]),
    ("size", [True, 480]),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda x: x if isinstance(x, str) else repr(x)[:24])
def test_a_broken_field_is_refused_by_its_name_in_few_words(key: str, value: Any) -> None:
    error = refused([join("pose/a", body(**{key: value}))])
    assert error.reason == f"field_{key}"
    assert (f"'{key}'" in str(error) or f"unknown {key}" in str(error)) and len(str(error)) < 300


@pytest.mark.parametrize("version", [None, 0, 2, "1", True, 1.0, DEEP])
def test_another_version_is_refused_with_the_stream_and_the_version_read(version: Any) -> None:
    error = refused([join("pose/cam7", body(v=version))])
    assert error.reason == "version" and "cam7" in str(error) and "reads 1" in str(error)


@pytest.mark.parametrize(
    "topic",
    [
        b"",
        b"pose",
        b"pose/",
        b"poses/a",
        b"alert/a",
        b"pose/\xff",
        b"pose/a\nb",
        b"pose/" + b"x" * 129,
        b"pose/\x1b[2J",
    ],
)
def test_a_topic_must_be_pose_and_a_short_printable_name(topic: bytes) -> None:
    packed = msgpack.packb(body())
    assert refused([topic + b"\0" + packed]).reason == "topic"
    assert refused([topic, packed]).reason == "topic"


def test_a_name_may_have_128_characters_of_any_script() -> None:
    name = "é" * 128
    assert decode_pose([join(f"pose/{name}", body())], LIMITS).stream == name


def test_a_message_has_one_part_or_two_and_a_topic() -> None:
    assert refused([]).reason == refused([b"pose/a", b"", b""]).reason == "parts"
    assert refused([msgpack.packb({"v": 1})]).reason == "topic"


def test_limits_are_refused_with_the_limits_name() -> None:
    one = join("pose/a", body())
    size = len(one) - len(b"pose/a\0")
    assert decode_pose([one], Limits(message_bytes=size, people=2)).seq == 7
    error = refused([one], Limits(message_bytes=size - 1))
    assert error.reason == "too_large" and "max_message_bytes" in str(error)
    error = refused([one], Limits(people=1))
    assert error.reason == "too_many_people" and "max_people is 1" in str(error)


def test_a_frame_of_as_many_people_as_allowed_fits_the_default_limits() -> None:
    layout, people = LAYOUTS["mediapipe33"], LIMITS.people
    joints = np.random.default_rng(0).normal(size=(people, 33, 3)).astype(np.float32)
    m = {"v": 1, "seq": 0, "t": 0, "layout": layout.name, "ids": list(range(people)), "joints": joints.tolist()}
    np.testing.assert_array_equal(decode_pose([join("pose/a", m)], LIMITS).joints, joints)


ALERTS = st.builds(
    Alert,
    id=NAMES, type=st.sampled_from(["new", "update", "end"]), seq=COUNTS, run=NAMES, stream=NAMES, track=INT64,
    start=COUNTS, end=COUNTS, score=st.floats(0, 1e6), peak=st.floats(0, 1e6), category=NAMES,
    joints=st.lists(st.sampled_from(CORE15), max_size=4).map(tuple), reason=NAMES,
    by=st.builds(Provenance, NAMES, NAMES, NAMES),
)  # fmt: skip
SCORES = st.lists(st.tuples(INT64, COUNTS, st.floats(0, 9), st.floats(0, 2), NAMES), max_size=4).flatmap(
    lambda rows: st.builds(
        Scores, COUNTS, NAMES, NAMES, *(st.just([row[i] for row in rows]) for i in range(5)), st.just(BY)
    )
)
STATUS = st.builds(
    Status,
    seq=COUNTS, run=NAMES, state=st.sampled_from(["online", "degraded", "draining", "offline"]), reason=NAMES,
    seconds=st.floats(0, 1e9), alert_seq=COUNTS, streams=COUNTS, tracks=COUNTS, frames=COUNTS, frames_lost=COUNTS,
    windows=COUNTS, by=st.just(BY),
)  # fmt: skip


@settings(derandomize=True, max_examples=90, deadline=None)
@given(st.one_of(ALERTS, SCORES, STATUS))
def test_an_event_comes_back_as_it_was_published(event: Event) -> None:
    message = encode_event(event)
    assert decode_event([message]) == event
    kind = {Alert: "alert/", Scores: "score/", Status: "status"}[type(event)]
    name = "" if isinstance(event, Status) else event.stream
    assert split([message])[0] == (kind + name).encode()
    assert decode_event(split([message])) == event


STATE = Status(1, "r", "online", "", 2.5, 3, 4, 5, 6, 7, 8, BY, silent=["gate"], warnings=["stream hall: odd"])


def event_body() -> dict[str, Any]:
    return {"v": 1, **asdict(STATE)}


def test_a_newer_engines_extra_fields_are_ignored() -> None:
    m = event_body()
    m["by"] = {**m["by"], "driver": "550"}
    assert decode_event([join("status", {**m, "gpu": "H100"})]) == STATE


def test_fields_that_older_engines_do_not_send_have_defaults() -> None:
    m = event_body()
    del m["journal"], m["replay"]
    assert decode_event([join("status", m)]) == STATE and STATE.row == "r"
    assert replace(STATE, journal="j").row == "j"


ALARM = Alert("i", "new", 0, "r", "cam1", 5, 1, 2, 1.5, 1.5, "walk", ("head",), "x", BY, "j", "1.npz", (3, 4))
SCORED = Scores(1, "r", "cam1", [5], [6], [0.5], [0.25], ["walk"], BY, [7])


@pytest.mark.parametrize(("event", "key"), [(e, k) for e in (STATE, ALARM, SCORED) for k in asdict(e)])
def test_every_field_of_an_event_is_of_its_type(event: Event, key: str) -> None:
    topic = {Alert: "alert/cam1", Scores: "score/cam1", Status: "status"}[type(event)]
    for wrong in (None, True, b"x", {"x": 1}, [None], [[1]]):
        with pytest.raises(WireError) as e:
            decode_event([join(topic, {"v": 1, **asdict(event), key: wrong})])
        assert e.value.reason == "event" and "send " not in str(e.value)
    m = {"v": 1, **asdict(event), "by": {**asdict(BY), "engine": 8}}
    with pytest.raises(WireError, match="engine is 8"):
        decode_event([join(topic, m)])


@pytest.mark.parametrize("number", [-1, 2**62, 2**64 - 1])
def test_an_event_whose_number_is_no_count_is_refused(number: int) -> None:
    """Whoever follows alerts asks for the next number, and writes it to the cursor."""
    for event in (replace(ALARM, seq=number), replace(SCORED, seq=number), replace(STATE, alert_seq=number)):
        with pytest.raises(WireError, match="no count"):
            decode_event([encode_event(event)])


def test_columns_of_scores_are_of_one_length_and_a_missing_list_is_empty() -> None:
    m = {"v": 1, **asdict(SCORED)}
    del m["unclear"]
    assert decode_event([join("score/cam1", m)]) == replace(SCORED, unclear=[])
    with pytest.raises(WireError, match="different lengths"):
        decode_event([join("score/cam1", {**m, "score": [0.5, 0.5]})])


def test_what_a_newer_engine_says_of_an_alert_or_of_itself_is_taken() -> None:
    assert decode_event([join("alert/cam1", {"v": 1, **asdict(ALARM), "type": "paused"})]) == replace(
        ALARM,
        type="paused",  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("key", sorted({*asdict(STATE)} - {"journal", "replay", "unclear", "silent", "warnings"}))
def test_an_event_without_one_of_its_fields_is_refused(key: str) -> None:
    m = event_body()
    del m[key]
    with pytest.raises(WireError, match=f"incomplete Status.*{key}") as e:
        decode_event([join("status", m)])
    assert e.value.reason == "event"


def test_what_is_no_event_is_refused() -> None:
    whole = encode_event(replace(STATE, reason="x"))
    for parts, reason in (
        ([join("pose/a", body())], "topic"),
        ([b"\xff\0\x80"], "topic"),
        ([join("status", {**event_body(), "v": 2})], "version"),
        ([join("status", {**event_body(), "by": "me"})], "event"),
        ([join("status", {**event_body(), "by": {"model": "m"}})], "event"),
        ([whole[:-1]], "msgpack"),
        ([b"status\0\x90"], "msgpack"),
    ):
        with pytest.raises(WireError) as e:
            decode_event(parts)
        assert e.value.reason == reason


def test_a_message_without_a_time_is_taken_as_captured_on_arrival() -> None:
    for body in ({"v": 1, "seq": 3, "end": True}, {"v": 1, "seq": 3, "t": None, "end": True}):
        frame = decode_pose([join("pose/a", body)], LIMITS, lambda: 77)
        assert (frame.t, frame.stamped) == (77, False)
    assert decode_pose([join("pose/a", {"v": 1, "seq": 3, "t": 9, "end": True})], LIMITS, lambda: 77).stamped
