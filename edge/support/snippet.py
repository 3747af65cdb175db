"""Cuts a stretch of one track out of pose messages, as a clip.

pose messages ─► one track's poses (t, core15) ─► its longest run without a gap ─► even steps ─► Clip
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
    """One track's poses in order of arrival: t and arrival in ns, joints (15, 3), visible (15,)."""

    t: list[int] = field(default_factory=list)
    arrival: list[int] = field(default_factory=list)
    joints: list[Float] = field(default_factory=list)
    visible: list[Float] = field(default_factory=list)


Who = tuple[str, int]
"""Stream and track id."""
Tracks = dict[Who, TrackPoses]
Rows = NDArray[np.intp]
"""Indices of a track's frames, in order of time."""


def tracks_in(messages: Iterable[Recorded], stream: str, track: int | None, min_confidence: float) -> Tracks:
    """Collect the tracks in messages, of one stream ("": all) and one id (None: all); skips unreadable messages."""
    found: Tracks = {}
    for arrival, message in messages:
        frame = _frame(message, arrival)
        if frame is not None and stream in ("", frame.stream):
            _add(frame, found, track, min_confidence, arrival)
    return found


def _frame(message: bytes, arrival: int) -> PoseFrame | None:
    try:
        return decode_pose([message], LIMITS, lambda: arrival)
    except WireError:
        return None


def _add(frame: PoseFrame, found: Tracks, track: int | None, min_confidence: float, arrival: int) -> None:
    """Add a frame's poses to the tracks found so far: those of one id, or all (None)."""
    rows = [i for i, id in enumerate(frame.ids.tolist()) if track in (None, id)]
    if not rows:
        return
    joints, visible, _ = frame.core15(min_confidence)
    for i in rows:
        poses = found.setdefault((frame.stream, int(frame.ids[i])), TrackPoses())
        poses.t.append(frame.t)
        poses.arrival.append(arrival)
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
    run = max(_runs(poses, s.max_gap), key=lambda rows: _duration(poses, rows))
    if not _long_enough(poses, run):
        raise SupportError(
            f"{stream} track {track}: seen for only {_duration(poses, run):.1f} s without a gap",
            why=f"a clip needs at least {LEAST_S:g} s",
            fix="choose a time at which the person is longer in view, or another track",
        )
    clip = _resampled(who, poses, run)
    if float(clip.visible.mean()) < s.min_visible:
        raise SupportError(
            f"{stream} track {track}: only {clip.visible.mean():.0%} of the joints are seen",
            why=f"a window with less than {s.min_visible:.0%} is not judged, so it cannot be an example either",
            fix="choose a stretch in which the whole person is in view",
        )
    return clip


def _runs(poses: TrackPoses, max_gap: float) -> list[Rows]:
    """Split a track's frames, in order of time and without repeated times, at its gaps."""
    t, order = np.unique(np.array(poses.t, np.int64), return_index=True)
    return np.split(order, np.flatnonzero(np.diff(t) > max_gap * SECOND) + 1)


def _duration(poses: TrackPoses, rows: Rows) -> float:
    """Seconds from a run's first frame to its last."""
    return float(poses.t[rows[-1]] - poses.t[rows[0]]) / SECOND


def _long_enough(poses: TrackPoses, rows: Rows) -> bool:
    """Whether a run lasts LEAST_S. Each frame counts for one step: at 30 fps thirty of them are a second."""
    step = float(np.median(np.diff([poses.t[i] for i in rows]))) / SECOND if len(rows) > 1 else 0.0
    return _duration(poses, rows) + step >= LEAST_S - 1e-6


def _resampled(who: Who, poses: TrackPoses, rows: Rows) -> Clip:
    """Make a clip of a run of two frames or more, at even steps of its own rate."""
    t = np.array([poses.t[i] for i in rows], np.int64)
    joints, visible = np.stack([poses.joints[i] for i in rows]), np.stack([poses.visible[i] for i in rows])
    rate = float(np.clip(SECOND / np.median(np.diff(t)), *RATES))
    at = t[0] + (np.arange(int((t[-1] - t[0]) / SECOND * rate + 1e-6) + 1) * SECOND / rate).astype(np.int64)
    after = np.clip(np.searchsorted(t, at, side="right"), 1, len(t) - 1)
    share = ((at - t[after - 1]) / (t[after] - t[after - 1])).clip(0, 1).astype(np.float32)[:, None]
    joints, visible = blend(joints[after - 1], visible[after - 1], joints[after], visible[after], share)
    about = {"stream": who[0], "track": who[1], "from": int(t[0]), "to": int(t[-1])}
    return Clip(joints, visible, rate, f"{who[0]}/{who[1]}", json.dumps(about, ensure_ascii=False))


Piece = tuple[Who, float, Clip]
"""Whose it is, when it begins (seconds after the recording's first message arrived), and the movement."""


def pieces(
    recording: Reader, s: Settings, longest: float, overlap: float, *, at: float, most: int
) -> tuple[list[Piece], float | None]:
    """Cut all tracks of a recording from second `at` on into clips of at most `longest` seconds, in order of time.

    A piece begins with the last `overlap` seconds of the one before. Runs without a gap that are shorter than LEAST_S
    are left out. Reading ends after `most` poses (person-frames): also returns the second at which it did, else None.
    """
    found: Tracks = {}
    first, count, upto = None, 0, None
    for arrival, message in recording:
        first = arrival if first is None else first
        second = (arrival - first) / SECOND
        if count >= most:
            upto = second
            break
        if second >= at and (frame := _frame(message, arrival)) is not None:
            _add(frame, found, None, s.min_confidence, arrival)
            count += len(frame.ids)
    out = []
    for who, poses in found.items():
        for run in _runs(poses, s.max_gap):
            t = np.array([poses.t[i] - poses.t[run[0]] for i in run], np.int64) / SECOND
            for begin, end in spans(float(t[-1]), longest, overlap):
                rows = run[(t >= begin) & (t <= end)]
                if len(rows) and _long_enough(poses, rows):
                    out.append((who, (poses.arrival[rows[0]] - (first or 0)) / SECOND, _resampled(who, poses, rows)))
    return sorted(out, key=lambda piece: piece[1]), upto


def spans(seconds: float, longest: float, overlap: float) -> list[tuple[float, float]]:
    """Divide a duration into spans (from, to) of at most `longest`, each with the last `overlap` of the one before."""
    starts = np.arange(0, max(seconds - overlap, 1e-6), longest - overlap).tolist()
    return [(start, min(start + longest, seconds)) for start in starts]


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
    where = f"{recording.path} at {at:g} s"
    if not found and track is not None and (ever := tracks_in(recording, stream, track, s.min_confidence)):
        raise SupportError(f"{where}: not in view then", why=_when(ever, first), fix="name such a time: --at SECONDS")
    others = () if found else tracks_in(stretch, "", None, s.min_confidence)
    who, poses = only(found, where, others)
    return who, clip_of(who, poses, s)


def _when(found: Tracks, first: int) -> str:
    """When the tracks were in view, in seconds after the recording's first message arrived (`first`, ns)."""
    spans = (
        (w, (min(p.arrival) - first) / SECOND, (max(p.arrival) - first) / SECOND) for w, p in list(found.items())[:10]
    )
    return ", ".join(f"{s} track {i} is from {a:.1f} to {b:.1f} s" for (s, i), a, b in spans)


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
            arrival = wall()
            frame = _frame(whole(parts), arrival)
            if frame is None:
                continue
            around.setdefault(frame.stream, set()).update(frame.ids.tolist())
            if frame.stream != stream:
                continue
            before = bool(found)
            _add(frame, found, track, s.min_confidence, arrival)
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
