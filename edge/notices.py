"""Lines for a person who watches the process: each kind of trouble is said once in a while, and always counted."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TextIO

RARELY = 60


class Notices:
    """Writes to `out`; the same `key` again within `every` seconds is only counted, and the count said later.

    What goes on is said less and less often, every `RARELY` times `every` in the end.
    """

    def __init__(
        self, out: TextIO | None = None, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._every, self._clock = out, every, clock
        self._said: dict[str, tuple[float, int, float]] = {}

    def say(self, text: str, key: str | None = None) -> None:
        """One line; `key` groups lines of the same kind. Beyond 1,000 kinds the oldest is forgotten."""
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
        # What cannot be said must not stop the engine: nobody may be reading, or the disk be full.
        with contextlib.suppress(OSError, ValueError):
            # One line, whatever a server or a file's name puts into it.
            plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
            print(f"haad-edge: {plain}", file=self._out or sys.stderr, flush=True)
