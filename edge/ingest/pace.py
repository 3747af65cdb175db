"""Warns about streams whose messages are valid but whose windows never fill, so that nothing is judged.

For example `t` is in milliseconds, every person gets a new id in each frame, or there is only one frame a second.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge.grid import SECOND
from edge.notices import Notices
from edge.windows import Stream, Windows

LOOK_S = 5.0
SILENT_S = 2.0
LONG_S = 20
SLOW = 50
"""A stream this many times slower than the wall clock is not played in slow motion; its `t` is wrong."""


class TimestampCheck:
    """Warns of streams whose `t` hardly moves while their frames come."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._since: dict[str, tuple[float, int]] = {}

    def check(self, streams: Iterable[Stream], now: float) -> None:
        """Call about once a second; `now` is monotonic seconds, as `Stream.heard` is."""
        since, self._since = self._since, {}
        for stream in streams:
            if now - stream.heard > SILENT_S:
                continue  # paused or gone: checked from the start when it comes back
            wall, t = since.get(stream.name, (stream.heard, stream.t))
            took = stream.heard - wall
            if took >= LOOK_S:
                moved = (stream.t - t) / SECOND
                if 0 <= moved < took / SLOW:
                    self._notices.say(
                        f"stream {stream.name}: in {took:.0f} s its 't' advanced by {moved:.3g} s; 't' must be in "
                        "nanoseconds",
                        f"pace {stream.name}",
                    )
                wall, t = stream.heard, stream.t
            self._since[stream.name] = wall, t


class TrackLengthCheck:
    """Warns of streams in which people are seen, but nobody for long enough to be judged."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._short: dict[str, int] = {}

    def check(self, windows: Windows, now: float) -> None:
        """Call once a second; `now` is monotonic seconds, as `Stream.heard` is."""
        before, self._short, spec = self._short, {}, windows.spec
        for name, stream in windows.streams.items():
            seen = before.get(name, 0)
            if now - stream.heard <= SILENT_S and stream.slots:
                whole = windows.rows[list(stream.slots.values())].max() >= spec.frames
                seen = 0 if whole else seen + 1
                if seen and seen % LONG_S == 0:
                    self._notices.say(
                        f"stream {name}: people have been seen for {seen} s, but nobody for a whole window of "
                        f"{spec.seconds:g} s, so nothing is judged. Do people stay that long, do ids stay the same "
                        f"from frame to frame, and do frames come every {spec.max_gap / SECOND:g} s or sooner?",
                        f"stay {name}",
                    )
            self._short[name] = seen
