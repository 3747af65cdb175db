"""Cuts each person's poses into sliding windows, with all tracks of all streams in one arena of arrays.

    frame (t, ids, joints, visible) ─► interpolated onto each track's own time grid ─► ring of T rows per track
                                                                     every `stride` rows: a window is due

The grid starts at a track's first frame and has `frames / seconds` rows a second, whatever the camera's rate. So a
ring holds exactly one window, a window is copied rather than computed, and 15, 30 and 60 fps give the same rows.

A track's first window is due when its ring is full. After that each track has its own phase within the stride, derived
from its stream's name and its id. Otherwise all people who are in view when an engine starts would be due together ever
after.

What happens to a frame depends on its time `t` relative to the track's last frame:
  later by ≤ max_gap      the grid rows in between are filled by interpolation
  later by > max_gap      the track's window starts again from nothing (counted `gaps`)
  the same                the frame is dropped (`repeated`): the first one counts
  earlier by ≤ max_gap    the frame is dropped (`late`)
  earlier by > max_gap    the camera's clock was set back: the track ends and begins again (`clock_jumps`)
A track that the arena has no room for is dropped and counted (`tracks_full`), and so is a stream (`streams_full`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.clip import blend
from edge.grid import WindowSpec, phase_of
from edge.skeleton import Float, J
from edge.wire import Form

Slots = NDArray[np.intp]
FATES = ("gaps", "repeated", "late", "clock_jumps", "tracks_full", "streams_full", "mixed")


@dataclass(slots=True)
class Stream:
    """One camera's state: its tracks' slots, the next expected sequence number, that of its next score message, and
    what was last received from it, and when (`heard`, monotonic seconds).
    """

    name: str
    slots: dict[int, int] = field(default_factory=dict)
    next_seq: int = -1
    old_seq: int = -1
    old_run: int = 0
    score_seq: int = 0
    t: int = 0
    sweep: int = 0
    heard: float = 0.0
    ids: bytes = b""
    places: bytes = b""
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """When a track was first and last seen (ns), where its middle was then (3,), and its size when last seen.

    The size is the longest side of the box around the visible joints: about the body's height, even when it lies.
    """

    stream: str
    since: int
    until: int
    first: Float
    last: Float
    size: float


class Windows:
    """The arena of all tracks' windows.

    `push` writes the people of frames and yields the slots whose windows are complete and due.
    """

    def __init__(self, spec: WindowSpec, max_tracks: int, max_streams: int) -> None:
        self.spec, self.max_streams = spec, max_streams
        t = spec.frames
        # Zeroed pages cost no memory until a track uses them.
        self._joints = np.zeros((max_tracks * t, J, 3), np.float32)
        self._visible = np.zeros((max_tracks * t, J), np.float32)
        self._last_joints = np.zeros((max_tracks, J, 3), np.float32)
        self._last_visible = np.zeros((max_tracks, J), np.float32)
        self._last_t = np.zeros(max_tracks, np.int64)
        self._t0 = np.zeros(max_tracks, np.int64)
        self._since = np.zeros(max_tracks, np.int64)
        self._first = np.zeros((max_tracks, 3), np.float32)
        self.rows = np.zeros(max_tracks, np.int64)
        self.track = np.zeros(max_tracks, np.int64)
        self._phase = np.zeros(max_tracks, np.int64)
        self.widen, self.widened = 1, 0
        """Only every `widen`-th window of a track is due; `widened` counts the windows skipped for that reason."""
        self.stream: list[Stream | None] = [None] * max_tracks
        self.streams: dict[str, Stream] = {}
        self.fate = dict.fromkeys(FATES, 0)
        self._free = list(range(max_tracks - 1, -1, -1))
        # Row k lists a ring's rows from oldest to newest if row k is the next to be written.
        self._ring = (np.arange(t)[:, None] + np.arange(t)) % t

    @property
    def live(self) -> int:
        """How many tracks there are."""
        return len(self.stream) - len(self._free)

    def stream_named(self, name: str) -> Stream | None:
        """The stream of that name, created if new; None when there are max_streams others."""
        found = self.streams.get(name)
        if found is None:
            if len(self.streams) >= self.max_streams:
                self.fate["streams_full"] += 1
                return None
            found = self.streams[name] = Stream(name)
        return found

    def push(
        self, slots: Slots, t: NDArray[np.int64], joints: Float, visible: Float
    ) -> Iterator[tuple[Slots, NDArray[np.int64]]]:
        """Write the people of frames in order of arrival, of any streams; a slot may occur in several frames.

        slots (P,) as `places` returns them, −1 for people to skip; t (P,) ns; joints (P, 15, 3), visible (P, 15). Call
        `advance` with each frame's time first. Yields (slots, end times in ns) of due windows, each slot at most once
        per yield; copy the windows with `gather` before resuming the iterator.
        """
        before = _previous(slots)
        again = before >= 0
        last_t = np.where(again, t[before], self._last_t[slots])
        age = t - last_t
        usual = (age > 0) & (age <= self.spec.max_gap) & (self.rows[slots] > 0) & (slots >= 0)
        if usual.all():
            yield from self._advance(slots, t, joints, visible, before, last_t)
            return
        # On these tracks the fate of a frame decides that of the next one, so their frames are taken one by one.
        odd = np.isin(slots, slots[~usual])
        if not odd.all():
            plain = np.flatnonzero(~odd)
            yield from self.push(slots[plain], t[plain], joints[plain], visible[plain])
        left = np.flatnonzero(odd)
        while len(left):
            first = _previous(slots[left]) < 0
            turn, left = left[first | (slots[left] < 0)], left[~first & (slots[left] >= 0)]
            yield from self._turn(slots[turn], t[turn], joints[turn], visible[turn])

    def _turn(
        self, slots: Slots, t: NDArray[np.int64], joints: Float, visible: Float
    ) -> Iterator[tuple[Slots, NDArray[np.int64]]]:
        """`push` for people of whom none occurs twice."""
        last_t = self._last_t[slots]
        age = t - last_t
        usual = (age > 0) & (age <= self.spec.max_gap) & (self.rows[slots] > 0) & (slots >= 0)
        if not usual.all():
            self._unusual(slots, t, joints, visible, age)
        if usual.any():
            s = slots[usual]
            none = np.full(len(s), -1)
            yield from self._advance(s, t[usual], joints[usual], visible[usual], none, last_t[usual])

    def _unusual(
        self, slots: Slots, t: NDArray[np.int64], joints: Float, visible: Float, age: NDArray[np.int64]
    ) -> None:
        """Begin the windows of people who are new or were away for too long; count every frame that is dropped."""
        keep, fresh = slots >= 0, self.rows[slots] == 0
        known = keep & ~fresh
        gap, repeated, late = known & (age > self.spec.max_gap), known & (age == 0), known & (age < 0)
        for name, mask in (("gaps", gap), ("repeated", repeated), ("late", late)):
            self.fate[name] += int(mask.sum())
        begin = (keep & fresh) | gap
        at = slots[begin]
        self._t0[at] = self._last_t[at] = t[begin]
        self._joints[at * self.spec.frames] = self._last_joints[at] = joints[begin]
        self._visible[at * self.spec.frames] = self._last_visible[at] = visible[begin]
        self.rows[at] = 1
        if (new := keep & fresh).any():
            self._since[slots[new]] = t[new]
            self._first[slots[new]] = _middle(joints[new], visible[new])

    def _advance(
        self,
        slots: Slots,
        t: NDArray[np.int64],
        joints: Float,
        visible: Float,
        before: NDArray[np.intp],
        last_t: NDArray[np.int64],
    ) -> Iterator[tuple[Slots, NDArray[np.int64]]]:
        """Fill the grid rows between each frame (P,) and its track's previous one: at index `before`, or stored if −1.

        All rows are computed at once. A window is a whole ring, so a track's rows are written up to its next due
        window, which is yielded before the rows after it are written.
        """
        spec, frames = self.spec, self.spec.frames
        t0 = self._t0[slots]
        had = spec.rows(last_t - t0)
        new = spec.rows(t - t0) - had
        of = np.repeat(np.arange(len(slots)), new)  # the frame at the end of the interval that each row lies in
        s, prev = slots[of], before[of]
        # How many rows the track has, counting this one.
        n = np.arange(1, len(of) + 1) + (had - np.cumsum(new) + new)[of]
        when = t0[of] + spec.grid(n - 1)
        from_t = last_t[of]
        f = ((when - from_t) / (t[of] - from_t)).astype(np.float32)[:, None]
        j0, v0 = joints.take(prev, 0), visible.take(prev, 0)
        if len(first := np.flatnonzero(prev < 0)):
            j0[first], v0[first] = self._last_joints.take(s[first], 0), self._last_visible.take(s[first], 0)
        made, seen = blend(j0, v0, joints.take(of, 0), visible.take(of, 0), f)
        row = s * frames + (n - 1) % frames
        phase = self._phase[s]
        due = (n == frames) | ((n > frames) & ((n - frames) % spec.stride == phase))
        turn = spec.due(n - 1, phase) - spec.due(self.rows[s], phase)
        newest = np.ones(len(slots), bool)
        newest[before[before >= 0]] = False
        at = slots[newest]
        self._last_t[at] = t[newest]
        self._last_joints[at], self._last_visible[at] = joints[newest], visible[newest]
        for k in range(int(turn.max(initial=-1)) + 1):
            now = np.flatnonzero(turn == k) if k or turn.any() else slice(None)
            # Rows are in order of time, so where a track occurs several times the last assignment is the newest.
            self._joints[row[now]], self._visible[row[now]], self.rows[s[now]] = made[now], seen[now], n[now]
            at = np.flatnonzero(due & (turn == k))
            if self.widen > 1 and len(at):
                number = (n[at] - frames) // spec.stride + s[at]
                passed = (number % self.widen != 0) & (n[at] > frames)
                self.widened += int(passed.sum())
                at = at[~passed]
            if len(at):
                yield s[at], when[at]

    def gather(self, slots: Slots, joints: Float, visible: Float) -> None:
        """Copy the newest window of each slot, oldest row first, into joints (n, T, 15, 3) and visible (n, T, 15)."""
        frames = self.spec.frames
        rows = self._ring[self.rows[slots] % frames] + slots[:, None] * frames
        np.take(self._joints, rows, 0, out=joints, mode="clip")  # any other mode would copy through a buffer
        np.take(self._visible, rows, 0, out=visible, mode="clip")

    def latest(self, slots: Slots) -> tuple[Float, Float]:
        """The last frame of each slot's track: joints (n, 15, 3), visible (n, 15)."""
        return self._last_joints[slots], self._last_visible[slots]

    def ends(self, slots: Slots) -> NDArray[np.int64]:
        """The time of each slot's newest row, ns."""
        return self._t0[slots] + self.spec.grid(self.rows[slots] - 1)

    def places(self, stream: Stream, ids: bytes) -> bytes:
        """The slots of a stream's tracks, allocated for new ones; −1, and counted, where no slot is free.

        Takes ids as the bytes of (n,) int64 and returns slots as the bytes of (n,) intp: the ids are nearly always
        those of the frame before, and bytes are quick to compare.
        """
        if ids == stream.ids:
            return stream.places
        tracks = np.frombuffer(ids, np.int64).tolist()
        found = [stream.slots.get(track, -1) for track in tracks]
        if -1 in found:
            for i, track in enumerate(tracks):
                if found[i] < 0 and self._free:
                    slot = found[i] = stream.slots[track] = self._free.pop()
                    self.stream[slot], self.track[slot], self.rows[slot] = stream, track, 0
                    self._phase[slot] = phase_of(stream.name, track, self.spec.stride)
                    self._last_t[slot] = stream.t
        places = np.array(found, np.intp).tobytes()
        if -1 in found:
            self.fate["tracks_full"] += found.count(-1)
        else:
            stream.ids, stream.places = ids, places
        return places

    def slots_of(self, stream: Stream, ids: Sequence[int]) -> Slots:
        """`places` for one frame's ids, as a list and an array instead of bytes."""
        return np.frombuffer(self.places(stream, np.array(ids, np.int64).tobytes()), np.intp)

    def who(self, slot: int) -> tuple[str, int]:
        """The stream's name and the track id of the slot's track; ("", -1) if the slot is free."""
        stream = self.stream[slot]
        return (stream.name, int(self.track[slot])) if stream else ("", -1)

    def place(self, slot: int) -> Place | None:
        """Where and when the slot's track was seen; None if the slot is free."""
        stream = self.stream[slot]
        if stream is None:
            return None
        joints, visible = self._last_joints[slot], self._last_visible[slot]
        size = float(np.ptp(joints[visible > 0], axis=0).max()) if visible.any() else 0.0
        last = _middle(joints[None], visible[None])[0]
        return Place(stream.name, int(self._since[slot]), int(self._last_t[slot]), self._first[slot].copy(), last, size)

    def advance(self, stream: Stream, t: int) -> bool:
        """Set the stream's clock to a frame's time, and return whether some of its tracks may be gone by now.

        If so, push the frames that came before, then ask `gone`. Cheap unless a sweep is due.
        """
        if stream.t <= t < stream.sweep:
            stream.t = t
            return False
        back = t < stream.t - self.spec.max_gap
        stream.t = t if back else max(stream.t, t)
        if back:
            stream.sweep = t
        if stream.t < stream.sweep:
            return False
        stream.sweep = stream.t + self.spec.timeout // 4
        # Frames not yet pushed can only make a track seem unseen for longer than it was, so none is missed here.
        return back or any(stream.t - int(self._last_t[s]) > self.spec.timeout for s in stream.slots.values())

    def gone(self, stream: Stream) -> list[int]:
        """The slots of tracks that are gone by their stream's clock, to be released.

        A track is gone if it was unseen for longer than the timeout or, after the camera's clock was set back by more
        than max_gap, if it was last seen in what is now the future (counted `clock_jumps`).
        """
        last = {s: int(self._last_t[s]) for s in stream.slots.values()}
        future = [s for s, seen in last.items() if seen > stream.t + self.spec.max_gap]
        self.fate["clock_jumps"] += len(future)
        return future + [s for s, seen in last.items() if stream.t - seen > self.spec.timeout]

    def release(self, slots: list[int]) -> None:
        """Forget the tracks in these slots."""
        for s in slots:
            owner = self.stream[s]
            if owner is not None:
                del owner.slots[int(self.track[s])]
                owner.ids = owner.places = b""
                self.stream[s] = None
                self._free.append(s)

    def drop_stream(self, stream: Stream) -> None:
        """Forget a stream; its tracks must have been released."""
        self.streams.pop(stream.name, None)


def _previous(slots: Slots) -> NDArray[np.intp]:
    """For each entry, the index of the previous entry with the same slot; −1 for the first."""
    narrow = slots.astype(np.uint16) if len(slots) and slots.max() < 0xFFFF else slots  # sorts faster, −1 last
    order = np.argsort(narrow, kind="stable")
    sorted_ = slots[order]
    same = sorted_[1:] == sorted_[:-1]
    out = np.full(len(slots), -1)
    out[order[1:][same]] = order[:-1][same]
    return out


def _middle(joints: Float, visible: Float) -> Float:
    """The mean of each pose's visible joints: (P, 15, 3), (P, 15) → (P, 3)."""
    seen = (visible > 0)[..., None]
    mean: Float = (joints * seen).sum(1) / np.maximum(seen.sum(1), 1)
    return mean
