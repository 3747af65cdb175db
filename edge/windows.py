"""Sliding windows per person, for all tracks of all streams in one arena.

    frame (t, ids, joints, visible) ─► interpolated onto each track's own time grid ─► ring of T rows per track
                                                                     every `stride` rows: a window is due

The grid starts at a track's first frame and has `frames / seconds` rows a second, whatever the camera's rate. So a
ring holds exactly one window, a window is copied rather than computed, and 15, 30 and 60 fps give the same rows.

What becomes of a frame, by its time `t` against the track's last frame:
  later by ≤ max_gap      the grid rows in between are filled by interpolation
  later by > max_gap      the track's window starts anew (counted `gaps`)
  the same                dropped (`repeated`): the first one stands
  earlier by ≤ max_gap    dropped (`late`)
  earlier by > max_gap    the camera's clock was set back: the track ends and begins anew (`clock_jumps`)
A track that the arena has no room for is dropped and counted (`tracks_full`), likewise a stream (`streams_full`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.clip import blend
from edge.skeleton import Float, J

Slots = NDArray[np.intp]
SECOND = 1_000_000_000
FATES = ("gaps", "repeated", "late", "clock_jumps", "tracks_full", "streams_full")


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """T rows span `seconds`; a window is due every `stride` rows. Times in ns."""

    frames: int
    seconds: float
    stride: int
    max_gap: int
    timeout: int

    @classmethod
    def of(cls, frames: int, seconds: float, stride: float, max_gap: float, timeout: float) -> WindowSpec:
        """From seconds; the stride is rounded to whole rows, at least one."""
        rows = max(1, round(stride * frames / seconds))
        return cls(frames, seconds, rows, round(max_gap * SECOND), round(timeout * SECOND))

    def grid(self, n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nanoseconds from a track's first frame to its row `n`."""
        return n * round(self.seconds * SECOND) // self.frames

    @property
    def step(self) -> float:
        """Seconds between two rows."""
        return self.seconds / self.frames


@dataclass(slots=True)
class Stream:
    """One camera: its tracks' slots, the sequence number that should come next, and that of its next score message."""

    name: str
    slots: dict[int, int] = field(default_factory=dict)
    next_seq: int = -1
    old_seq: int = -1
    old_run: int = 0
    score_seq: int = 0
    t: int = 0
    swept: int = 0
    heard: float = 0.0


class Windows:
    """The arena. `push` writes one frame's people and yields the slots whose window is complete and due."""

    def __init__(self, spec: WindowSpec, max_tracks: int, max_streams: int) -> None:
        self.spec, self.max_streams = spec, max_streams
        t = spec.frames
        # Zeroed pages cost no memory until a track uses them.
        self.joints = np.zeros((max_tracks, t, J, 3), np.float32)
        self.visible = np.zeros((max_tracks, t, J), np.float32)
        self._last_joints = np.zeros((max_tracks, J, 3), np.float32)
        self._last_visible = np.zeros((max_tracks, J), np.float32)
        self._last_t = np.zeros(max_tracks, np.int64)
        self._t0 = np.zeros(max_tracks, np.int64)
        self.rows = np.zeros(max_tracks, np.int64)
        self.track = np.zeros(max_tracks, np.int64)
        self.born = np.zeros(max_tracks, np.int64)
        """Counts a slot's tenants, so that a result can tell that its track is gone."""
        self.stream: list[Stream | None] = [None] * max_tracks
        self.streams: dict[str, Stream] = {}
        self.fate = dict.fromkeys(FATES, 0)
        self._free = list(range(max_tracks - 1, -1, -1))
        self._ring = np.arange(t)

    @property
    def live(self) -> int:
        """How many tracks there are."""
        return len(self.stream) - len(self._free)

    def stream_named(self, name: str) -> Stream | None:
        """The stream, made if need be; None when there are max_streams others."""
        found = self.streams.get(name)
        if found is None:
            if len(self.streams) >= self.max_streams:
                self.fate["streams_full"] += 1
                return None
            found = self.streams[name] = Stream(name)
        return found

    def push(
        self, stream: Stream, t: int, ids: NDArray[np.int64], joints: Float, visible: Float
    ) -> Iterator[tuple[Slots, NDArray[np.int64]]]:
        """Take one frame: joints (P, 15, 3), visible (P, 15), t in ns; call `advance` with its time first.

        Yields (slots, end times in ns) of due windows; copy them with `gather` before asking for the next.
        """
        slots = self._slots(stream, ids)
        keep = slots >= 0
        age = t - self._last_t[slots]
        fresh = self.rows[slots] == 0
        known = keep & ~fresh
        gap, repeated, late = known & (age > self.spec.max_gap), known & (age == 0), known & (age < 0)
        for name, mask in (("gaps", gap), ("repeated", repeated), ("late", late)):
            if mask.any():
                self.fate[name] += int(mask.sum())
        begin = keep & (fresh | gap)
        if begin.any():
            self._begin(slots[begin], t, joints[begin], visible[begin])
        go = known & ~(gap | repeated | late)
        if go.any():
            yield from self._advance(slots[go], t, joints[go], visible[go])

    def _begin(self, slots: Slots, t: int, joints: Float, visible: Float) -> None:
        self._t0[slots] = self._last_t[slots] = t
        self.joints[slots, 0] = self._last_joints[slots] = joints
        self.visible[slots, 0] = self._last_visible[slots] = visible
        self.rows[slots] = 1

    def _advance(
        self, slots: Slots, t: int, joints: Float, visible: Float
    ) -> Iterator[tuple[Slots, NDArray[np.int64]]]:
        spec, last = self.spec, self._last_t[slots]
        at = np.arange(len(slots))
        while True:
            n = self.rows[slots[at]]
            when = self._t0[slots[at]] + spec.grid(n)
            more = when <= t
            if not more.any():
                break
            at, n, when = at[more], n[more], when[more]
            s = slots[at]
            f = ((when - last[at]) / (t - last[at])).astype(np.float32)[:, None]
            row = n % spec.frames
            self.joints[s, row], self.visible[s, row] = blend(
                self._last_joints[s], self._last_visible[s], joints[at], visible[at], f
            )
            self.rows[s] = n = n + 1
            due = (n >= spec.frames) & ((n - spec.frames) % spec.stride == 0)
            if due.any():
                yield s[due], when[due]
        self._last_t[slots] = t
        self._last_joints[slots] = joints
        self._last_visible[slots] = visible

    def gather(self, slots: Slots, joints: Float, visible: Float) -> None:
        """Copy the newest window of each slot, oldest row first, into joints (n, T, 15, 3) and visible (n, T, 15)."""
        order = (self._ring + self.rows[slots][:, None]) % self.spec.frames
        joints[:] = self.joints[slots[:, None], order]
        visible[:] = self.visible[slots[:, None], order]

    def _slots(self, stream: Stream, ids: NDArray[np.int64]) -> Slots:
        known = stream.slots
        out = np.empty(len(ids), np.intp)
        for i, track in enumerate(ids.tolist()):
            slot = known.get(track)
            if slot is None:
                if not self._free:
                    self.fate["tracks_full"] += 1
                    out[i] = -1
                    continue
                slot = known[track] = self._free.pop()
                self.stream[slot], self.track[slot], self.rows[slot] = stream, track, 0
                self.born[slot] += 1
            out[i] = slot
        return out

    def advance(self, stream: Stream, t: int) -> list[int]:
        """Set the stream's clock to a frame's time; returns the slots of tracks that are gone by it, to be released.

        Gone is who was unseen for the timeout, and, when the camera's clock was set back by more than max_gap, who
        was last seen in what is now the future (`clock_jumps`). Cheap unless a sweep is due.
        """
        back = t < stream.t - self.spec.max_gap
        stream.t = t if back else max(stream.t, t)
        if not back and 0 <= stream.t - stream.swept < self.spec.timeout // 4:
            return []
        stream.swept = stream.t
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
                self.stream[s] = None
                self._free.append(s)

    def drop_stream(self, stream: Stream) -> None:
        """Forget a stream; its tracks must have been released."""
        self.streams.pop(stream.name, None)
