"""Watches whether each stream is there and can be judged: an engine that hears nothing raises no alarm either.

streams, once a second ─► silent? · `t`, track lengths, posture ─► status, metrics, and a line when it changes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from edge.ingest.pace import TimestampCheck, TrackLengthCheck
from edge.ingest.posture import PostureCheck
from edge.notices import Notices
from edge.windows import Stream, Windows

NAMED = 10
"""How many streams one line names at most."""


class Check(Protocol):
    """Looks for streams that cannot be judged rightly although they send."""

    def find(self, windows: Windows, now: float) -> dict[str, str]:
        """Look once a second; `now` is monotonic seconds, as `Stream.heard` is.

        Returns stream → what is wrong with it. The text stays the same while that is so.
        """
        ...


class StreamHealth:
    """Keeps what is wrong with the streams, and says so once when that changes.

    A stream is silent when nothing has come from it for `silent_after` seconds (0: none ever is) although it did not
    say that it ends. The `expected` ones are silent also if they never came or have ended. `now`: the time of the start
    in monotonic seconds. At most `most` silent streams are remembered, beside the expected ones.
    """

    def __init__(
        self, expected: Iterable[str], silent_after: float, most: int, notices: Notices, now: float = 0.0
    ) -> None:
        self._expected = {name: Stream(name, heard=now) for name in expected}
        self._silent_after, self._most, self._notices = silent_after, most, notices
        self._checks: tuple[Check, ...] = (TimestampCheck(), TrackLengthCheck(), PostureCheck())
        self._found: list[dict[str, str]] = [{} for _ in self._checks]
        self._known = dict(self._expected)
        self.silent: tuple[str, ...] = ()
        """Streams that are silent, in alphabetical order."""
        self.heard: dict[str, float] = {}
        """Stream → when something last came from it, monotonic seconds. Replaced as a whole, for other threads."""

    def check(self, windows: Windows, now: float) -> None:
        """Call once a second; `now`: when the sockets were last read, monotonic seconds."""
        self._look_for_silence(windows, now)
        for k, check in enumerate(self._checks):
            before, self._found[k] = self._found[k], check.find(windows, now)
            for name, why in self._found[k].items():
                if why != before.get(name):
                    self._notices.say(f"stream {name}: {why}", f"{k} {name}")

    def ended(self, stream: Stream) -> None:
        """Note that a stream said that it ends; it is missed only if it is expected."""
        if stream.name in self._expected:
            self._known[stream.name] = stream
        else:
            self._known.pop(stream.name, None)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with streams that send, a line each."""
        return [f"stream {name}: {why}" for found in self._found for name, why in found.items()]

    def _look_for_silence(self, windows: Windows, now: float) -> None:
        known = {**self._known, **windows.streams}
        gone = sorted((s.heard, n) for n, s in known.items() if n not in windows.streams and n not in self._expected)
        for _, name in gone[: max(0, len(gone) - self._most)]:
            del known[name]
        self._known, self.heard = known, {n: s.heard for n, s in known.items()}
        before, after = set(self.silent), self._silent_after
        self.silent = tuple(sorted(n for n, heard in self.heard.items() if after and now - heard > after))
        if new := [n for n in self.silent if n not in before]:
            self._notices.say(
                f"silent for {after:g} s: {named(new)}. "
                "Does the tracker run there, and does it send frames without people too?"
            )
        if back := sorted(n for n in before.difference(self.silent) if n in windows.streams):
            self._notices.say(f"no longer silent: {named(back)}")


def named(streams: Sequence[str]) -> str:
    """The first of these streams by name, and how many more there are."""
    more = len(streams) - NAMED
    return ", ".join(streams[:NAMED]) + (f" and {more} more" if more > 0 else "")
