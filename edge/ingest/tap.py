"""Passes the poses that the engine accepts on to other programs: `record`, and `support add` from a live camera.

    tracker ─► ingest ─► decode ─┬─► windows …
                                 └─► Tap ─► poses_out ─► whoever subscribes

A message goes out as it came in. While nobody subscribes, nothing is sent, and the only cost is to ask ZeroMQ a few
times a second whether there is a new subscriber.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.network.sink import Sink
from edge.wire import whole

LOOK_S = 0.05
"""Seconds between two checks for new subscribers."""


class Tap:
    """Passes pose messages on to `sink`. A subscriber that does not keep up misses some, and sees that by `seq`."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._looked, self.heard = sink, float("-inf"), False

    def listening(self, now: float) -> bool:
        """Whether anybody subscribes to poses; `now` in monotonic seconds."""
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._sink.newcomers()
            self.heard = self._sink.wanted(b"pose/")
        return self.heard

    def send(self, parts: Sequence[bytes]) -> None:
        """Pass on a message of one or two parts as a single part."""
        self._sink.send(whole(parts))
