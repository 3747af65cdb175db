"""Streams of which nothing can be judged though their messages are all right: a `t` in milliseconds is accepted, and so
are a number of its own for everybody in each frame, or one frame a second; and no window is ever full."""

from __future__ import annotations

from collections.abc import Iterable

from edge.grid import SECOND
from edge.notices import Notices
from edge.windows import Stream, Windows

LOOK_S = 5.0
SILENT_S = 2.0
LONG_S = 20
SLOW = 50
"""So many times slower than the wall is no playback in slow motion."""


class Pace:
    """Looks at streams now and then, and says which one's `t` hardly moves while its frames come."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._since: dict[str, tuple[float, int]] = {}

    def look(self, streams: Iterable[Stream], now: float) -> None:
        """Once a second or so; `now` is monotonic seconds, as `Stream.heard` is."""
        since, self._since = self._since, {}
        for stream in streams:
            if now - stream.heard > SILENT_S:
                continue  # paused, or gone: what comes then is looked at anew
            wall, t = since.get(stream.name, (stream.heard, stream.t))
            took = stream.heard - wall
            if took >= LOOK_S:
                moved = (stream.t - t) / SECOND
                if 0 <= moved < took / SLOW:
                    self._notices.say(
                        f"stream {stream.name}: in {took:.0f} s its 't' went on by {moved:.3g} s. It is in nanoseconds",
                        f"pace {stream.name}",
                    )
                wall, t = stream.heard, stream.t
            self._since[stream.name] = wall, t


class Stay:
    """Looks at streams once a second, and says where people are seen and nobody for long enough to be judged."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._short: dict[str, int] = {}

    def look(self, windows: Windows, now: float) -> None:
        """`now` is monotonic seconds, as `Stream.heard` is."""
        before, self._short, spec = self._short, {}, windows.spec
        for name, stream in windows.streams.items():
            seen = before.get(name, 0)
            if now - stream.heard <= SILENT_S and stream.slots:
                whole = windows.rows[list(stream.slots.values())].max() >= spec.frames
                seen = 0 if whole else seen + 1
                if seen and seen % LONG_S == 0:
                    self._notices.say(
                        f"stream {name}: people are seen for {seen} s, and nobody for a window of {spec.seconds:g} s, "
                        "so nothing is judged. Do people stay so long, do ids stay the same from frame to frame, and "
                        f"do frames come every {spec.max_gap / SECOND:g} s or sooner?",
                        f"stay {name}",
                    )
            self._short[name] = seen
