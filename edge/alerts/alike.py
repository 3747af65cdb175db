"""Finds alerts that are alike: a normal action that the support lacks raises the same false alarm again and again.

a raised alert's embedding ─► Earlier ─► the earlier alert of its stream that it is like
many embeddings ─► alike ─► groups, for the page of `haad-edge view`
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.skeleton import Float

NEAR = 0.5
"""How far apart alerts may be to count as alike, relative to the median limit of the support's categories. See
docs/tried.md, 'Alerts that are alike'."""
REMEMBERED = 256


def near_of(limits: NDArray[np.float64]) -> float:
    """The cosine distance up to which alerts count as alike, from the limits (G,) of the support's categories."""
    return NEAR * float(np.median(limits))


def alike(vectors: Float, near: float) -> list[list[int]]:
    """Group unit vectors (N, D) that point the same way: each in one group, the largest group first.

    The one with the most others within the cosine distance `near`, and of such the one that is nearest to them, is the
    middle of a group. They are put aside, and so on with the rest. In a group the middle comes first, then the others
    by their distance from it.
    """
    distance = np.round(1 - vectors @ vectors.T, 6)
    np.fill_diagonal(distance, 0)
    left, groups = np.ones(len(vectors), bool), []
    while left.any():
        close = (distance <= near + 1e-6) & left & left[:, None]
        middle = int(np.lexsort([(distance * close).sum(1), -close.sum(1)])[0])
        group = np.flatnonzero(close[middle])
        groups.append(group[np.argsort(distance[middle, group], kind="stable")].tolist())
        left[group] = False
    return groups


@dataclass(frozen=True, slots=True)
class _Known:
    id: str
    end: int
    like: str
    vector: Float


class Earlier:
    """Remembers the newest alerts of each stream, REMEMBERED in all.

    Those within `apart` (ns) of each other are not compared: which of them comes first depends on how messages are
    drained, and the same recording must give the same alerts.
    """

    def __init__(self, apart: int) -> None:
        self._apart = apart
        self._known: dict[str, deque[_Known]] = {}
        self._order: deque[str] = deque()

    def like(self, stream: str, id: str, end: int, vector: Float, near: float) -> str:
        """The first alert of the same kind on this stream, as far back as is remembered, or ''; remembers this one.

        `end` (ns) is when its window ends, `vector` (D,) that window's embedding, `near` the distance up to which two
        are alike. If that was asked before of the same alert, the answer stays.
        """
        known = self._known.setdefault(stream, deque())
        if again := next((k for k in known if k.id == id), None):
            return again.like
        before = [(float(k.vector @ vector), -k.end, k.like or k.id) for k in known if k.end + self._apart < end]
        cosine, _, first = max(before, default=(-1.0, 0, ""))
        like = first if 1 - cosine <= near and first != id else ""
        known.append(_Known(id, end, like, vector))
        self._order.append(stream)
        if len(self._order) > REMEMBERED:
            oldest = self._known[self._order.popleft()]
            oldest.popleft()
        self._known = {name: there for name, there in self._known.items() if there}
        return like
