"""Queues tracks whose windows are due while the engine has no room: each track once, streams in turns.

    due slots ─add─► {stream: its slots, in order} ─take─► one of each stream, and again
                     a stream that had its turn goes to the end

Streams take turns, so a camera with a hundred people does not delay one with a single person. What waits is the track,
not a copy of its window: the newest window is judged when the turn comes, so nobody is judged on old data, and the
backlog cannot outgrow the number of tracks.
"""

from __future__ import annotations

from collections.abc import Iterable


class Backlog:
    """The queue of waiting slots, `n` in all."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, None]] = {}
        self.n = 0

    def add(self, stream: str, slot: int) -> bool:
        """Queue a slot. False if it was waiting already; it then keeps its place."""
        mine = self._waiting.setdefault(stream, {})
        if slot in mine:
            return False
        mine[slot] = None
        self.n += 1
        return True

    def take(self, n: int) -> list[int]:
        """Remove and return the next slots, `n` at most."""
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
        """Remove slots whose tracks are gone; returns how many of them were waiting."""
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
