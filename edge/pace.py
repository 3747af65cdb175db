"""Whether streams' clocks keep pace with the wall's: a `t` in milliseconds is accepted, and no window is ever full."""

from __future__ import annotations

from collections.abc import Iterable

from edge.grid import SECOND
from edge.notices import Notices
from edge.windows import Stream

LOOK_S = 5.0
SILENT_S = 2.0
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
