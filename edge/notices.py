"""Prints lines for a person who watches the process; repeated ones of the same kind only once in a while."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TextIO

RARELY = 60


class Notices:
    """Writes lines to `out`, standard error by default.

    A line with the same `key` as another within `every` seconds is only counted, and the count is added to a later
    line. Trouble that persists is reported less and less often, in the end every `RARELY` times `every` seconds.
    """

    def __init__(
        self, out: TextIO | None = None, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._every, self._clock = out, every, clock
        self._said: dict[str, tuple[float, int, float]] = {}

    def say(self, text: str, key: str | None = None) -> None:
        """Print one line; `key` groups lines of the same kind. Beyond 1,000 kinds the oldest is forgotten."""
        now = self._clock()
        if key is not None:
            last, silent, every = self._said.get(key, (float("-inf"), 0, self._every))
            if now - last < every:
                self._said[key] = (last, silent + 1, every)
                return
            if len(self._said) >= 1000:
                self._said.pop(next(iter(self._said)))
            goes_on = now - last < 2 * every + self._every
            self._said[key] = (now, 0, min(2 * every, RARELY * self._every) if goes_on else self._every)
            if silent:
                text += f" ({silent} more like it since)"
        # A failed write must not stop the engine: the reader may be gone, or the disk full.
        with contextlib.suppress(OSError, ValueError):
            # Keep it to one line, whatever a server's answer or a file name contains.
            plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
            print(f"haad-edge: {plain}", file=self._out or sys.stderr, flush=True)
