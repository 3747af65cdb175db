"""Windows that are due while the engine has no room: each track once, streams in turns.

    due slots ─add─► {stream: its slots, in order} ─take─► one of each stream, and again
                     a stream that had its turn goes to the end

A camera with a hundred people waits for its hundred turns, one with a single person for none of them. What waits is the
track and not a copy of its window: it is judged as it is when its turn comes, so nobody is judged on what is old, and
the backlog cannot grow beyond the tracks there are.
"""

from __future__ import annotations

from collections.abc import Iterable


class Backlog:
    """See above. `n` slots wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, None]] = {}
        self.n = 0

    def add(self, stream: str, slot: int) -> bool:
        """Let a slot wait for its turn; False if it was waiting already, and keeps its place."""
        mine = self._waiting.setdefault(stream, {})
        if slot in mine:
            return False
        mine[slot] = None
        self.n += 1
        return True

    def take(self, n: int) -> list[int]:
        """The next slots, `n` at most."""
        out: list[int] = []
        while len(out) < n and self._waiting:
            stream = next(iter(self._waiting))
            mine = self._waiting.pop(stream)
            slot = next(iter(mine))
            del mine[slot]
            out.append(slot)
            if mine:
                self._waiting[stream] = mine
        self.n -= len(out)
        return out

    def forget(self, stream: str, slots: Iterable[int]) -> int:
        """Take slots out whose tracks are gone; returns how many were waiting."""
        mine = self._waiting.get(stream)
        if mine is None:
            return 0
        found = [slot for slot in slots if slot in mine]
        for slot in found:
            del mine[slot]
        if not mine:
            del self._waiting[stream]
        self.n -= len(found)
        return len(found)
