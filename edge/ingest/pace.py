"""Finds streams whose messages are valid but whose windows never fill, so that nothing is judged.

For example `t` is in milliseconds, every person gets a new id in each frame, or there is only one frame a second.
"""

from __future__ import annotations

from edge.grid import SECOND
from edge.windows import Windows

LOOK_S = 5.0
SILENT_S = 2.0
LONG_S = 20
SLOW = 50
"""A stream this many times slower than the wall clock is not played in slow motion; its `t` is wrong."""


class TimestampCheck:
    """Finds streams whose `t` hardly moves while their frames come."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, int, str]] = {}

    def find(self, windows: Windows, now: float) -> dict[str, str]:
        """See `edge.ingest.health.Check`."""
        since, self._since = self._since, {}
        for name, stream in windows.streams.items():
            if now - stream.heard > SILENT_S:
                continue  # paused or gone: checked from the start when it comes back
            wall, t, why = since.get(name, (stream.heard, stream.t, ""))
            took = stream.heard - wall
            if took >= LOOK_S:
                moved = (stream.t - t) / SECOND
                found = f"in {took:.0f} s its 't' advanced by {moved:.3g} s; 't' must be in nanoseconds"
                why = (why or found) if 0 <= moved < took / SLOW else ""
                wall, t = stream.heard, stream.t
            self._since[name] = wall, t, why
        return {name: why for name, (_, _, why) in self._since.items() if why}


class TrackLengthCheck:
    """Finds streams in which people are seen, but nobody for long enough to be judged."""

    def __init__(self) -> None:
        self._short: dict[str, int] = {}

    def find(self, windows: Windows, now: float) -> dict[str, str]:
        """See `edge.ingest.health.Check`."""
        before, self._short, spec = self._short, {}, windows.spec
        for name, stream in windows.streams.items():
            seen = before.get(name, 0)
            if now - stream.heard <= SILENT_S and stream.slots:
                whole = windows.rows[list(stream.slots.values())].max() >= spec.frames
                seen = 0 if whole else seen + 1
            self._short[name] = seen
        why = (
            f"people have been seen for {LONG_S} s, but nobody for a whole window of {spec.seconds:g} s, so nothing is "
            "judged. Do people stay that long, do ids stay the same from frame to frame, and do frames come every "
            f"{spec.max_gap / SECOND:g} s or sooner?"
        )
        return {name: why for name, seen in self._short.items() if seen >= LONG_S}
