"""A stretch of one track, out of pose messages, as a clip.

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
"""Shorter stretches say too little to be normal by."""
RATES = (5.0, 60.0)


@dataclass(slots=True)
class Sight:
    """One track's poses, as they came: t and arrival in ns, joints (15, 3), visible (15,)."""

    t: list[int] = field(default_factory=list)
    arrival: list[int] = field(default_factory=list)
    joints: list[Float] = field(default_factory=list)
    visible: list[Float] = field(default_factory=list)


Who = tuple[str, int]
Rows = NDArray[np.intp]
"""Numbers of a track's frames, in order of time."""


def look(messages: Iterable[Recorded], stream: str, track: int | None, min_confidence: float) -> dict[Who, Sight]:
    """The tracks in messages, of one stream ("": all) and one id (None: all); what cannot be read is passed over."""
    found: dict[Who, Sight] = {}
    for arrival, message in messages:
        frame = _frame(message, arrival)
        if frame is not None and stream in ("", frame.stream):
            _see(frame, found, track, min_confidence, arrival)
    return found


def _frame(message: bytes, arrival: int) -> PoseFrame | None:
    try:
        return decode_pose([message], LIMITS, lambda: arrival)
    except WireError:
        return None


def _see(frame: PoseFrame, found: dict[Who, Sight], track: int | None, min_confidence: float, arrival: int) -> None:
    rows = [i for i, id in enumerate(frame.ids.tolist()) if track in (None, id)]
    if not rows:
        return
    joints, visible, _ = frame.core15(min_confidence)
    for i in rows:
        sight = found.setdefault((frame.stream, int(frame.ids[i])), Sight())
        sight.t.append(frame.t)
        sight.arrival.append(arrival)
        sight.joints.append(joints[i])
        sight.visible.append(visible[i])


def only(found: dict[Who, Sight], where: str, others: Iterable[Who] = ()) -> tuple[Who, Sight]:
    """The one track that was seen. Raises SupportError when there was none or several, naming who else there was."""
    if not found:
        there = ", ".join(f"{s} track {i}" for s, i in others)
        raise SupportError(
            f"{where}: nobody like that was seen",
            why=f"there was {there:.600}" if there else "",
            fix="look at --from-stream, --track and the time",
        )
    if len(found) > 1:
        seen = ", ".join(f"{s} track {i} ({(max(x.t) - min(x.t)) / SECOND:.1f} s)" for (s, i), x in found.items())
        raise SupportError(f"{where}: several people", why=seen[:600], fix="choose one: --from-stream S --track N")
    return next(iter(found.items()))


def clip_of(who: Who, sight: Sight, s: Settings) -> Clip:
    """The longest run of a track without a gap, at even steps of its own rate. Raises SupportError if too short."""
    stream, track = who
    run = max(_runs(sight, s.max_gap), key=lambda rows: _lasts(sight, rows))
    if not _lasts_enough(sight, run):
        raise SupportError(
            f"{stream} track {track}: seen for {_lasts(sight, run):.1f} s without a gap",
            why=f"{LEAST_S:g} s are the least",
            fix="wait until the person is in view, or take another track",
        )
    clip = _evenly(who, sight, run)
    if float(clip.visible.mean()) < s.min_visible:
        raise SupportError(
            f"{stream} track {track}: only {clip.visible.mean():.0%} of the joints are seen",
            why=f"a window with less than {s.min_visible:.0%} is not judged, so it is no example either",
            fix="take a stretch in which the whole person is in view",
        )
    return clip


def _runs(sight: Sight, max_gap: float) -> list[Rows]:
    """The frames of a track in order of time, each time once, parted where there is a gap."""
    t, order = np.unique(np.array(sight.t, np.int64), return_index=True)
    return np.split(order, np.flatnonzero(np.diff(t) > max_gap * SECOND) + 1)


def _lasts(sight: Sight, rows: Rows) -> float:
    """Seconds from the first to the last of a run's frames."""
    return float(sight.t[rows[-1]] - sight.t[rows[0]]) / SECOND


def _lasts_enough(sight: Sight, rows: Rows) -> bool:
    """Whether a run is LEAST_S long. Each frame stands for a step: thirty of them are a second."""
    step = float(np.median(np.diff([sight.t[i] for i in rows]))) / SECOND if len(rows) > 1 else 0.0
    return _lasts(sight, rows) + step >= LEAST_S - 1e-6


def _evenly(who: Who, sight: Sight, rows: Rows) -> Clip:
    """A run of two frames or more at even steps of its own rate."""
    t = np.array([sight.t[i] for i in rows], np.int64)
    joints, visible = np.stack([sight.joints[i] for i in rows]), np.stack([sight.visible[i] for i in rows])
    rate = float(np.clip(SECOND / np.median(np.diff(t)), *RATES))
    at = t[0] + (np.arange(int((t[-1] - t[0]) / SECOND * rate + 1e-6) + 1) * SECOND / rate).astype(np.int64)
    after = np.clip(np.searchsorted(t, at, side="right"), 1, len(t) - 1)
    share = ((at - t[after - 1]) / (t[after] - t[after - 1])).clip(0, 1).astype(np.float32)[:, None]
    joints, visible = blend(joints[after - 1], visible[after - 1], joints[after], visible[after], share)
    about = {"stream": who[0], "track": who[1], "from": int(t[0]), "to": int(t[-1])}
    return Clip(joints, visible, rate, f"{who[0]}/{who[1]}", json.dumps(about, ensure_ascii=False))


def pieces(recording: Reader, s: Settings, longest: float, most: int) -> list[tuple[Who, float, Clip]]:
    """Every track of a recording, in pieces of `longest` seconds at most: whose, when each begins, and the clip.

    That is in seconds after the recording's first message arrived, as `from_recording` counts. Runs without a gap that
    are shorter than LEAST_S are left out. Only the first `most` frames of persons are read.
    """
    found: dict[Who, Sight] = {}
    first, count = None, 0
    for arrival, message in recording:
        first = arrival if first is None else first
        if (frame := _frame(message, arrival)) is not None:
            _see(frame, found, None, s.min_confidence, arrival)
            count += len(frame.ids)
        if count >= most:
            break
    out = []
    for who, sight in found.items():
        for run in _runs(sight, s.max_gap):
            t = np.array([sight.t[i] for i in run], np.int64)
            for rows in np.split(run, np.flatnonzero(np.diff((t - t[0]) // round(longest * SECOND))) + 1):
                if _lasts_enough(sight, rows):
                    out.append((who, (sight.arrival[rows[0]] - (first or 0)) / SECOND, _evenly(who, sight, rows)))
    return sorted(out, key=lambda piece: piece[1])


def from_recording(
    recording: Reader, stream: str, track: int | None, at: float | None, seconds: float, s: Settings
) -> tuple[Who, Clip]:
    """`seconds` of a recording from `at` on, seconds after its first message arrived; None: its last.

    A negative `at` counts from the end. Raises SupportError.
    """
    first = last = None
    for arrival, _ in recording:
        first = arrival if first is None else first
        last = arrival
    if first is None or last is None:
        raise SupportError(f"{recording.path}: empty", why=recording.problem)
    at = -seconds if at is None else at
    begin = (first if at >= 0 else last) + round(at * SECOND)
    until = begin + round(seconds * SECOND)
    if begin > last or until < first:
        raise SupportError(f"{recording.path}: lasts {(last - first) / SECOND:.1f} s, and has nothing at {at:g} s")
    stretch = [m for m in recording if begin <= m.arrival <= until]
    found = look(stretch, stream, track, s.min_confidence)
    others = () if found else look(stretch, "", None, s.min_confidence)
    who, sight = only(found, f"{recording.path} at {at:g} s", others)
    return who, clip_of(who, sight, s)


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
    """The next `seconds` of a track, from when it is first seen. Raises SupportError if it is not within `wait`.

    Other streams of the source are there to be named when this one is not.
    """
    found: dict[Who, Sight] = {}
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
            _see(frame, found, track, s.min_confidence, arrival)
            first = first if before else clock()
        if not found and clock() - start >= wait:
            raise _missed(stream, track, wait, around)
    who, sight = only(found, stream)
    return who, clip_of(who, sight, s)


def _missed(stream: str, track: int | None, wait: float, around: dict[str, set[int]]) -> SupportError:
    """Nobody like that came, but others may have: `around` has the tracks by stream."""
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
        return SupportError(what, why=f"what comes is of {names:.600}", fix="--from-stream with one of these")
    if tracks := ", ".join(map(str, sorted(around[stream]))):
        return SupportError(what, why=f"in view are the tracks {tracks:.600}", fix="--track with one of these")
    return SupportError(what, why="its messages come, and hold nobody", fix="try again when the person is in view")
