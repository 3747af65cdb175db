"""Takes the decoded frames of a drain: accounts for them, gives their people slots, and writes them into windows.

    Drain ─► ledger, stream's clock, slots ─ frame by frame
          └► Windows.push ─ the people of all frames together ─► due windows ─► stage

People are written together for speed. Only where a track may be gone, or a stream ends, the frames before that point
are written first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge.ingest.drain import Drain
from edge.ingest.source import Ledger
from edge.notices import Notices
from edge.windows import Slots, Stream, Windows
from edge.wire import Form

PEOPLE = 4096
"""People that are written together at most, so that the memory it takes is bounded."""


def keep_memory() -> None:
    """Make the C library keep the memory of freed arrays for the next ones, up to about 60 MB.

    glibc returns large blocks to the system at once and faults their pages in one by one the next time, which takes a
    third of the time of a drain. It learns what counts as large from the largest block freed so far, up to 32 MiB
    (mallopt(3), M_MMAP_THRESHOLD). The block freed here is never written to, so it costs nothing. With other C
    libraries this has no effect.
    """
    np.empty(31 << 20, np.uint8)


class Arrivals:
    """Writes drains into windows.

    `stage` is called with due slots, their windows' ends (ns) and the time now; `release` with slots whose tracks are
    gone; `ended` with a stream that says that it ends.
    """

    def __init__(
        self,
        windows: Windows,
        ledger: Ledger,
        notices: Notices,
        stage: Callable[[Slots, NDArray[np.int64], float], None],
        release: Callable[[list[int]], None],
        ended: Callable[[Stream], None],
    ) -> None:
        self._windows, self._ledger, self._notices = windows, ledger, notices
        self._stage, self._release, self._ended = stage, release, ended
        keep_memory()

    def take(self, drain: Drain, now: float) -> None:
        """Take all frames of a drain, which came in at `now`, in monotonic seconds."""
        windows, ledger = self._windows, self._ledger
        full, places = windows.fate["tracks_full"], list[bytes]()
        first, people = 0, 0  # the frame that `places` begins with, and how many people its frames hold
        frames = zip(drain.stream, drain.seq, drain.t, drain.ids, drain.form, strict=True)
        for i, (name, seq, t, ids, form) in enumerate(frames):
            stream = windows.streams.get(name) or self._newcomer(name)
            if stream is None:
                places.append(b"\xff" * len(ids))
                continue
            stream.heard = now
            if missing := ledger.enter(stream, seq, len(ids) // 8):
                if missing > 0:
                    self._notices.say(f"stream {name}: {missing} messages lost before seq {seq}", name)
                else:
                    self._notices.say(
                        f"stream {name}: seq {seq} arrived late; do two cameras share this name?", f"{name} late"
                    )
            mixed = form is not None and form != stream.form and self._mixed(stream, form)
            if windows.advance(stream, t) or mixed:
                self._write(drain, first, places, now)
                first, people, places = i, 0, []
                self._release(list(stream.slots.values()) if mixed else windows.gone(stream))
            places.append(windows.places(stream, ids))
            people += len(ids) // 8
            if drain.bad and (bad := drain.bad.get(i)):
                ledger.bad_joints += bad
                self._notices.say(
                    f"stream {name}: {bad} visible joints with impossible coordinates, taken as hidden", "bad_joints"
                )
            ends = bool(drain.ends) and i in drain.ends
            if ends or people >= PEOPLE:
                self._write(drain, first, places, now)
                first, people, places = i + 1, 0, []
            if ends:
                self._release(list(stream.slots.values()))
                windows.drop_stream(stream)
                self._ended(stream)
        self._write(drain, first, places, now)
        if windows.fate["tracks_full"] > full:
            self._notices.say(f"no room for another track: max_tracks is {len(windows.rows)}", "tracks_full")

    def _mixed(self, stream: Stream, form: Form) -> bool:
        """Whether these poses differ in form from the stream's earlier ones, so that no window may hold both."""
        before, stream.form = stream.form, form
        if before is None:
            return False
        self._windows.fate["mixed"] += 1
        was, now = (f"{name}, c {c}{', with size' if sized else ''}" for name, c, sized in (before, form))
        self._notices.say(
            f"stream {stream.name}: its poses were {was}, and now are {now}, so its tracks begin again; "
            "do two senders use this name?",
            f"{stream.name} mixed",
        )
        return True

    def _newcomer(self, name: str) -> Stream | None:
        """Register a new stream; None when there is no room for it."""
        stream = self._windows.stream_named(name)
        if stream is None:
            most = self._windows.max_streams
            self._notices.say(f"no room for another stream, {name}: max_streams is {most}", "streams_full")
        return stream

    def _write(self, drain: Drain, first: int, places: list[bytes], now: float) -> None:
        """Write the people of the frames from `first` on, as many frames as there are places, into their windows."""
        slots = np.frombuffer(b"".join(places), np.intp)
        if not len(slots):
            return
        last = first + len(places)
        counts, at = drain.people[first:last], drain.first[first]
        part = slice(at, at + len(slots))
        t = np.repeat(np.array(drain.t[first:last], np.int64), counts)
        for due, ends in self._windows.push(slots, t, drain.joints[part], drain.visible[part]):
            self._stage(due, ends, now)
