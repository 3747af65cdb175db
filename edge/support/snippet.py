"""Cuts a stretch of one track out of pose messages, as a clip.

pose messages ─► one track's poses (t, core15) ─► its longest run without a gap ─► even steps ─► Clip
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from edge.clip import Clip, blend
from edge.errors import SupportError, WireError
from edge.grid import SECOND
from edge.ingest.source import Source
from edge.recordings.record import LIMITS
from edge.recordings.recording import Reader, Recorded
from edge.settings import Settings
from edge.skeleton import Float
from edge.wire import PoseFrame, decode_pose, whole

LEAST_S = 1.0
"""A shorter stretch shows too little to serve as a normal example."""
RATES = (5.0, 60.0)


@dataclass(slots=True)
class TrackPoses:
    """One track's poses in order of arrival: t in ns, joints (15, 3), visible (15,)."""

    t: list[int] = field(default_factory=list)
    joints: list[Float] = field(default_factory=list)
    visible: list[Float] = field(default_factory=list)


Who = tuple[str, int]
"""Stream and track id."""
Tracks = dict[Who, TrackPoses]


def tracks_in(messages: Iterable[Recorded], stream: str, track: int | None, min_confidence: float) -> Tracks:
    """Collect the tracks in messages, of one stream ("": all) and one id (None: all); skips unreadable messages."""
    found: Tracks = {}
    for arrival, message in messages:
        frame = _frame(message, arrival)
        if frame is not None and stream in ("", frame.stream):
            _add(frame, found, track, min_confidence)
    return found


def _frame(message: bytes, arrival: int) -> PoseFrame | None:
    try:
        return decode_pose([message], LIMITS, lambda: arrival)
    except WireError:
        return None


def _add(frame: PoseFrame, found: Tracks, track: int | None, min_confidence: float) -> None:
    """Add a frame's poses to the tracks found so far: those of one id, or all (None)."""
    rows = [i for i, id in enumerate(frame.ids.tolist()) if track in (None, id)]
    if not rows:
        return
    joints, visible, _ = frame.core15(min_confidence)
    for i in rows:
        poses = found.setdefault((frame.stream, int(frame.ids[i])), TrackPoses())
        poses.t.append(frame.t)
        poses.joints.append(joints[i])
        poses.visible.append(visible[i])


def only(found: Tracks, where: str, others: Iterable[Who] = ()) -> tuple[Who, TrackPoses]:
    """The one track that was found. Raises SupportError if there is none, naming `others`, or if there are several."""
    if not found:
        there = ", ".join(f"{s} track {i}" for s, i in others)
        raise SupportError(
            f"{where}: no such person was seen",
            why=f"in view were {there:.600}" if there else "",
            fix="check --from-stream, --track and the time",
        )
    if len(found) > 1:
        seen = ", ".join(f"{s} track {i} ({(max(x.t) - min(x.t)) / SECOND:.1f} s)" for (s, i), x in found.items())
        raise SupportError(
            f"{where}: several people were seen", why=seen[:600], fix="choose: --from-stream S --track N"
        )
    return next(iter(found.items()))


def clip_of(who: Who, poses: TrackPoses, s: Settings) -> Clip:
    """Make a clip of a track's longest run without a gap, at even steps of its own rate.

    Raises SupportError if the run is too short, or shows too little of the person.
    """
    stream, track = who
    order = np.unique(np.array(poses.t, np.int64), return_index=True)[1]
    t = np.array(poses.t, np.int64)[order]
    cuts = np.flatnonzero(np.diff(t) > s.max_gap * SECOND) + 1
    runs = np.split(np.arange(len(t)), cuts)
    run = max(runs, key=lambda r: int(t[r[-1]] - t[r[0]]))
    t, order = t[run], order[run]
    lasts = (t[-1] - t[0]) / SECOND
    step = float(np.median(np.diff(t))) / SECOND if len(t) > 1 else 0.0
    if lasts + step < LEAST_S - 1e-6:  # each frame stands for a step: thirty of them are a second
        raise SupportError(
            f"{stream} track {track}: seen for only {lasts:.1f} s without a gap",
            why=f"a clip needs at least {LEAST_S:g} s",
            fix="wait until the person is in view, or choose another track",
        )
    joints = np.stack([poses.joints[i] for i in order])
    visible = np.stack([poses.visible[i] for i in order])
    rate = float(np.clip(SECOND / np.median(np.diff(t)), *RATES))
    at = t[0] + (np.arange(int(lasts * rate + 1e-6) + 1) * SECOND / rate).astype(np.int64)
    after = np.clip(np.searchsorted(t, at, side="right"), 1, len(t) - 1)
    share = ((at - t[after - 1]) / (t[after] - t[after - 1])).clip(0, 1).astype(np.float32)[:, None]
    joints, visible = blend(joints[after - 1], visible[after - 1], joints[after], visible[after], share)
    if float(visible.mean()) < s.min_visible:
        raise SupportError(
            f"{stream} track {track}: only {visible.mean():.0%} of the joints are seen",
            why=f"a window with less than {s.min_visible:.0%} is not judged, so it cannot be an example either",
            fix="choose a stretch in which the whole person is in view",
        )
    about = {"stream": stream, "track": track, "from": int(t[0]), "to": int(t[-1])}
    return Clip(joints, visible, rate, f"{stream}/{track}", json.dumps(about, ensure_ascii=False))


def from_recording(
    recording: Reader, stream: str, track: int | None, at: float | None, seconds: float, s: Settings
) -> tuple[Who, Clip]:
    """Make a clip of `seconds` of a recording, starting `at` seconds after its first message arrived.

    A negative `at` counts from the end; None takes the last `seconds`. Raises SupportError.
    """
    first = last = None
    for arrival, _ in recording:
        first = arrival if first is None else first
        last = arrival
    if first is None or last is None:
        raise SupportError(f"{recording.path}: holds no message", why=recording.problem)
    at = -seconds if at is None else at
    begin = (first if at >= 0 else last) + round(at * SECOND)
    until = begin + round(seconds * SECOND)
    if begin > last or until < first:
        raise SupportError(f"{recording.path}: lasts {(last - first) / SECOND:.1f} s, so there is nothing at {at:g} s")
    stretch = [m for m in recording if begin <= m.arrival <= until]
    found = tracks_in(stretch, stream, track, s.min_confidence)
    others = () if found else tracks_in(stretch, "", None, s.min_confidence)
    who, poses = only(found, f"{recording.path} at {at:g} s", others)
    return who, clip_of(who, poses, s)


def from_live(
    source: Source,
    stream: str,
    track: int | None,
    seconds: float,
    wait: float,
    s: Settings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], int] = time.time_ns,
) -> tuple[Who, Clip]:
    """Make a clip of the next `seconds` of a live track, from when it is first seen.

    `source` should bring all streams, so that an error can name those there are. Raises SupportError if the track is
    not seen within `wait` seconds.
    """
    found: Tracks = {}
    around: dict[str, set[int]] = {}
    start, first = clock(), 0.0
    while not found or clock() - first < seconds:
        messages = source.receive(0.1)
        for parts in messages:
            frame = _frame(whole(parts), wall())
            if frame is None:
                continue
            around.setdefault(frame.stream, set()).update(frame.ids.tolist())
            if frame.stream != stream:
                continue
            before = bool(found)
            _add(frame, found, track, s.min_confidence)
            first = first if before else clock()
        if not found and clock() - start >= wait:
            raise _missed(stream, track, wait, around)
    who, poses = only(found, stream)
    return who, clip_of(who, poses, s)


def _missed(stream: str, track: int | None, wait: float, around: dict[str, set[int]]) -> SupportError:
    """The error when the wanted track did not come; `around` holds the tracks that did, by stream."""
    who = f"track {track} was not" if track is not None else "nobody was"
    what = f"{stream}: {who} seen within {wait:g} s"
    if not around:
        return SupportError(
            what,
            why="no message of any stream came",
            fix="start the engine with --poses-out pub+bind:tcp://127.0.0.1:5558",
        )
    if stream not in around:
        names = ", ".join(sorted(around))
        return SupportError(what, why=f"messages come only from {names:.600}", fix="--from-stream with one of these")
    if tracks := ", ".join(map(str, sorted(around[stream]))):
        return SupportError(what, why=f"the tracks in view are {tracks:.600}", fix="--track with one of these")
    return SupportError(what, why="its messages show no people", fix="try again when the person is in view")
