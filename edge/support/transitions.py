"""Makes windows of the change between two normal actions (a transition): the end of one and the start of the next.

    clips of walk ─┐
                   ├─ end of one, blended into the start of the other ─► windows ─► a group of the support of its own
    clips of wave ─┘   (each way)

No clip shows such a window, so each change from one normal action to another would look abnormal. Therefore each pair
of categories that are normal together on some stream gets a group of features beside the categories' own, with a limit
by the same rule. So does each category with itself, since a person who repeats an action does not begin where the last
round ended. A window nearest to such a group is reported under the nearer of its two categories, never as a pair.
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
"""The version of `transition_windows`; part of a cached feature's name, and of the support's version."""
BLEND_S = 0.35
"""Seconds in which one action becomes the other: the middle of the range used to blend real clips into streams."""
CUTS = 4
"""Windows cut from one change; the last of them begins where the change does."""
CLIPS = 3
"""Clips of each category that are paired; more made no difference."""

ACROSS = np.array([[CORE15.index(f"{side}_{part}") for side in "lr"] for part in ("hip", "shoulder")])
"""The pairs of joints, left and right, whose line shows which way a body faces: (2, 2)."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class TransitionPlan:
    """Between which categories transitions are enrolled.

    `normal` is the setting of that name, `most` the largest number of pairs, `room` the number of groups that the
    engine has room for (None: any). A category with itself is a pair too.
    """

    normal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    most: int = 0
    room: int | None = None

    def most_of(self, categories: int) -> tuple[int, str]:
        """How many pairs there may be beside so many categories, and the reason why not more."""
        if self.room is not None and self.room - categories < self.most:
            why = (
                f"the engine has room for {self.room} categories and pairs together "
                "→ haad-edge build BUNDLE --target tensorrt --support …"
            )
            return max(0, self.room - categories), why
        return self.most, f"max_transitions is {self.most}"


def transition_windows(a: Clip, b: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """Windows of the changes from `a` to `b` and back: joints (2·CUTS, T, 15, 3), visible (2·CUTS, T, 15)."""
    both = [_change(x, y, frames, seconds) for x, y in ((a, b), (b, a))]
    return np.concatenate([j for j, _ in both]), np.concatenate([v for _, v in both])


def _change(a: Clip, b: Clip, frames: int, seconds: float) -> tuple[Float, Float]:
    """Windows of the change from `a` to `b`: joints (CUTS, T, 15, 3), visible (CUTS, T, 15).

    The last pose of `a` is held while it is blended into the start of `b`, which is moved and turned to begin where `a`
    stands, facing the same way.
    """
    before, after = np.arange(-frames, 0) * (seconds / frames), np.arange(frames) * (seconds / frames)
    ja, va = _at(a, a.seconds + np.minimum(np.concatenate([before, after]), 0), seconds)
    jb, vb = _at(b, after, seconds)
    here, there = ground(ja[frames:], va[frames:]), ground(jb, vb)
    turned = (jb - there) @ _rotation(jb[0], vb[0], ja[frames], va[frames]).T + here
    jb = np.where(vb[..., None] > 0, turned, jb).astype(np.float32)
    share = np.clip(after / BLEND_S, 0, 1).astype(np.float32)[:, None]
    ja[frames:], va[frames:] = blend(ja[frames:], va[frames:], jb, vb, share)
    rows = np.arange(1, CUTS + 1)[:, None] * frames // CUTS + np.arange(frames)
    return ja[rows], va[rows]


def _at(clip: Clip, times: NDArray[np.floating], seconds: float) -> tuple[Float, Float]:
    """A clip's poses at `times`, looped if it is short and held at its ends if not, as `enrol.clip_windows` has it."""
    return (clip.at if clip.seconds >= 2 * seconds else clip.looped)(times)


def paired(a: Sequence[Item], b: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Pair the clips of two categories: at most CLIPS pairs, evenly spread over both."""
    n = min(CLIPS, max(len(a), len(b)))
    return [(_spread(a, n)[k], _spread(b, n)[k]) for k in range(n)]


def _rotation(start: Float, seen: Float, end: Float, still_seen: Float) -> Float:
    """The rotation (3, 3) about the vertical from the way that pose `start` faces to that of `end`.

    Taken from the lines through the hips and through the shoulders, as far as both poses show them; the identity
    without any.
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
    """Pair the clips of one category: at most CLIPS of them, each with the next; of one or two, each with itself."""
    some = _spread(a, min(CLIPS, len(a)))
    return list(zip(some, some[1:] + some[:1] if len(some) > 2 else some, strict=True))


def _spread(items: Sequence[Item], n: int) -> list[Item]:
    """`n` of the items: evenly spread if there are more, starting over from the first if there are fewer."""
    if len(items) < n:
        return [items[k % len(items)] for k in range(n)]
    return [items[round(k)] for k in np.linspace(0, len(items) - 1, n)]


def chosen(plan: TransitionPlan, names: Sequence[str], centre: Float) -> tuple[NDArray[np.intp], list[str]]:
    """Choose the pairs of categories between which changes are enrolled: (P, 2), each row in ascending order.

    If there is not room for all, the least similar pairs are chosen, since a change between similar actions resembles
    both, and a change within one action needs a group least of all. Also returns a notice if pairs were left out.
    `centre` (G, D) is the mean of each category's features.
    """
    rows = np.argwhere(np.triu(NormalByStream(plan.normal, names).together())).astype(np.intp)
    most, why = plan.most_of(len(names))
    if len(rows) <= most:
        return rows, []
    unit = centre / np.linalg.norm(centre, axis=1, keepdims=True)
    alike = (unit[rows[:, 0]] * unit[rows[:, 1]]).sum(1)
    kept = rows[np.sort(np.argsort(alike, kind="stable")[:most])]
    notice = f"changes between categories are known for {len(kept)} of {len(rows)} pairs only, since {why}"
    return kept, [notice] if plan.most else []
