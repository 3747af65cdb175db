"""What lies between two normal actions: windows that hold the end of one and the start of the next.

    clips of walk ─┐
                   ├─ end of one, blended into the start of the other ─► windows ─► a group of the support of its own
    clips of wave ─┘   (each way)

No clip shows such a window, so each change from one normal action to another would look abnormal. Each pair of
categories that are normal together on some stream therefore gets a group of features beside the categories' own, with a
limit by the same rule; and so does each category with itself, since who begins an action again does not begin where the
last round ended. What a group excuses is said to be of the nearer of its two: nobody is told of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip, blend, ground
from edge.score import NormalByStream
from edge.skeleton import CORE15, Float

RULE = "1"
"""The version of `turn_windows`; part of a cached feature's name, and of the support's version."""
BLEND_S = 0.35
"""Seconds in which one action becomes the other; the middle of what streams of real clips were blended with."""
CUTS = 4
"""Windows of a change, the last of which begins with it."""
CLIPS = 3
"""Clips of each category that are paired; more made no difference."""

ACROSS = np.array([[CORE15.index(f"{side}_{part}") for side in "lr"] for part in ("hip", "shoulder")])
"""The joints whose line from left to right says which way a body faces: (2, 2)."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """Between which categories: `normal` is the setting, `most` the number of pairs, `room` of groups in the engine.

    A category and itself are a pair too.
    """

    normal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    most: int = 0
    room: int | None = None

    def most_of(self, categories: int) -> tuple[int, str]:
        """How many pairs there may be beside so many categories, and why not more."""
        if self.room is not None and self.room - categories < self.most:
            why = f"the engine has room for {self.room} of both → haad-edge build BUNDLE --target tensorrt --support …"
            return max(0, self.room - categories), why
        return self.most, f"max_turns is {self.most}"


def turn_windows(a: Clip, b: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """Windows over a change from `a` to `b` and from `b` to `a`: joints (2·CUTS, T, 15, 3), visible (2·CUTS, T, 15)."""
    both = [_change(x, y, frames, seconds) for x, y in ((a, b), (b, a))]
    return np.concatenate([j for j, _ in both]), np.concatenate([v for _, v in both])


def _change(a: Clip, b: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """The end of `a`, held while it is blended into the start of `b`, which begins where `a` stands, facing its way."""
    before, after = np.arange(-frames, 0) * (seconds / frames), np.arange(frames) * (seconds / frames)
    ja, va = _at(a, a.seconds + np.minimum(np.concatenate([before, after]), 0), seconds)
    jb, vb = _at(b, after, seconds)
    here, there = ground(ja[frames:], va[frames:]), ground(jb, vb)
    turned = (jb - there) @ _turn(jb[0], vb[0], ja[frames], va[frames]).T + here
    jb = np.where(vb[..., None] > 0, turned, jb).astype(np.float32)
    share = np.clip(after / BLEND_S, 0, 1).astype(np.float32)[:, None]
    ja[frames:], va[frames:] = blend(ja[frames:], va[frames:], jb, vb, share)
    rows = np.arange(1, CUTS + 1)[:, None] * frames // CUTS + np.arange(frames)
    return ja[rows], va[rows]


def _at(clip: Clip, times: NDArray[np.floating], seconds: float) -> tuple[Float, Float]:
    """As `edge.support.enrol.clip_windows` takes it: a short clip goes round, a longer one is a stretch."""
    return (clip.at if clip.seconds >= 2 * seconds else clip.looped)(times)


def paired(a: Sequence[Item], b: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Which clips of two categories are put together: at most CLIPS pairs, evenly spread over both."""
    n = min(CLIPS, max(len(a), len(b)))
    return [(_spread(a, n)[k], _spread(b, n)[k]) for k in range(n)]


def _turn(start: Float, seen: Float, end: Float, still_seen: Float) -> Float:
    """The rotation (3, 3) about the vertical from the way that pose `start` faces to that of `end`.

    By the line through the hips and that through the shoulders; where neither pose shows them both ends, none.
    """
    both = (np.minimum(seen, still_seen)[ACROSS] > 0).all(1)
    lines = [pose[ACROSS[:, 1]] - pose[ACROSS[:, 0]] for pose in (start, end)]
    (x0, _, z0), (x1, _, z1) = (line[both].sum(0) for line in lines)
    sine, cosine = x1 * z0 - z1 * x0, x0 * x1 + z0 * z1
    size = float(np.hypot(sine, cosine))
    if size < 1e-9:
        return np.eye(3, dtype=np.float32)
    s, c = sine / size, cosine / size
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)


def repeated(a: Sequence[Item]) -> list[tuple[Item, Item]]:
    """The same of one category: each of at most CLIPS of its clips and the next; of two or one, each and itself."""
    some = _spread(a, min(CLIPS, len(a)))
    return list(zip(some, some[1:] + some[:1] if len(some) > 2 else some, strict=True))


def _spread(items: Sequence[Item], n: int) -> list[Item]:
    """`n` of the items, evenly spread where there are more, again from the first where there are fewer."""
    if len(items) < n:
        return [items[k % len(items)] for k in range(n)]
    return [items[round(k)] for k in np.linspace(0, len(items) - 1, n)]


def chosen(plan: TurnPlan, names: Sequence[str], centre: Float) -> tuple[NDArray[np.intp], list[str]]:
    """Between which categories a change is enrolled: (P, 2), no row falling; and what is said if not between all.

    Where not all can be had, those that are least alike: what lies between two like actions is like both, and least of
    all is needed within one. `centre` (G, D) is the mean of each category's features.
    """
    rows = np.argwhere(np.triu(NormalByStream(plan.normal, names).together())).astype(np.intp)
    most, why = plan.most_of(len(names))
    if len(rows) <= most:
        return rows, []
    unit = centre / np.linalg.norm(centre, axis=1, keepdims=True)
    alike = (unit[rows[:, 0]] * unit[rows[:, 1]]).sum(1)
    kept = rows[np.sort(np.argsort(alike, kind="stable")[:most])]
    said = f"a change from one category to another is known for {len(kept)} of {len(rows)} pairs, since {why}"
    return kept, [said] if plan.most else []
