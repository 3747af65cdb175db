"""Where others hear the poses that the engine takes: `record`, and `support add` from a live camera.

    tracker ─► ingest ─► decode ─┬─► windows …
                                 └─► Tap ─► poses_out ─► whoever subscribes

A message goes out as it came in. While nobody subscribes, nothing is sent, and nothing is asked of ZeroMQ but, a few
times a second, whether somebody has come.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.network.sink import Sink
from edge.wire import whole

LOOK_S = 0.05
"""Between two looks for new subscribers."""


class Tap:
    """Passes pose messages on to `sink`; one that does not keep up misses messages, which `seq` shows it."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._looked, self.heard = sink, float("-inf"), False

    def listening(self, now: float) -> bool:
        """Whether somebody hears poses; `now` in monotonic seconds."""
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._sink.newcomers()
            self.heard = self._sink.wanted(b"pose/")
        return self.heard

    def send(self, parts: Sequence[bytes]) -> None:
        """Pass a message of one or two parts on, as one of one part."""
        self._sink.send(whole(parts))
