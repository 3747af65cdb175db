"""From what one drain of the sockets brought to arrays over all its people.

    frames, in order of arrival ─► waves of one frame per stream ─► joints (P, 15, 3), visible (P, 15) of each wave

Mapping a person onto core15 costs a numpy call or twenty, whatever the number of people; so it is done once for all
that came together. A stream's frames must be taken one after the other, those of different streams need not: the
k-th frames of all streams make the k-th wave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.skeleton import Float, J, lift, mask_bad
from edge.wire import PoseFrame


@dataclass(frozen=True, slots=True)
class Wave:
    """Frames of different streams, and their people in the same order: joints (P, 15, 3), visible (P, 15).

    `bad` counts, by frame, the joints claimed visible at no real place; it is empty when there are none.
    """

    frames: list[PoseFrame]
    joints: Float
    visible: Float
    bad: dict[int, int]


def waves(frames: Sequence[PoseFrame], min_confidence: float) -> Iterator[Wave]:
    """The frames as waves, each stream's in its own order."""
    turns: list[list[PoseFrame]] = []
    seen: dict[str, int] = {}
    for frame in frames:
        k = seen[frame.stream] = seen.get(frame.stream, -1) + 1
        if k == len(turns):
            turns.append([])
        turns[k].append(frame)
    ordered = [frame for turn in turns for frame in turn]
    joints, visible, bad = core15(ordered, min_confidence)
    at = first = 0
    for turn in turns:
        people = sum(len(frame.ids) for frame in turn)
        part = slice(at, at + people)
        mine = {i - first: n for i, n in bad.items() if first <= i < first + len(turn)}
        yield Wave(turn, joints[part], visible[part], mine)
        at, first = at + people, first + len(turn)


def core15(frames: Sequence[PoseFrame], min_confidence: float) -> tuple[Float, Float, dict[int, int]]:
    """All frames' people, in order, as `PoseFrame.core15` has them; and the number of bad joints by frame."""
    kinds: dict[tuple[str, int, bool, tuple[float, float] | None], list[int]] = {}
    for i, f in enumerate(frames):
        if len(f.ids):
            kinds.setdefault((f.layout.name, f.joints.shape[2], f.visible is None, f.size), []).append(i)
    if len(kinds) == 1:
        return _alike(frames, next(iter(kinds.values())), min_confidence)
    first = np.cumsum([0] + [len(f.ids) for f in frames])
    joints, visible = np.zeros((first[-1], J, 3), np.float32), np.zeros((first[-1], J), np.float32)
    bad: dict[int, int] = {}
    for members in kinds.values():
        rows: NDArray[np.intp] = np.concatenate([np.arange(first[i], first[i + 1]) for i in members])
        joints[rows], visible[rows], some = _alike(frames, members, min_confidence)
        bad |= some
    return joints, visible, bad


def _alike(
    frames: Sequence[PoseFrame], members: list[int], min_confidence: float
) -> tuple[Float, Float, dict[int, int]]:
    """The same for frames of one layout, size and kind."""
    some = [frames[i] for i in members]
    layout, size = some[0].layout, some[0].size
    joints = np.concatenate([f.joints for f in some])
    confidence = None if some[0].visible is None else np.concatenate([f.visible for f in some if f.visible is not None])
    joints, visible, count = mask_bad(lift(joints, size), confidence, min_confidence)
    # Whose they are is asked only when there are any: a camera that sends them is the exception.
    bad = {i: n for i in members if (n := frames[i].core15(min_confidence)[2])} if count else {}
    return *layout.to_core15(joints, visible), bad
