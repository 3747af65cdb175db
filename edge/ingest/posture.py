"""Whether bodies come the right way round. An axis that points the wrong way is no error of any message or file, and is
judged all the same, only worse: with up to sixteen times the error (docs/start.md, "The right way round").

    poses (N, 15, 3) ─► cues (N, 7), to be added up over a folder's clips or a stream's seconds ─► what seems wrong

A trunk tells where up is. Knees tell left from right: they bend forwards, and where that is follows from a leg and from
which hip is the left one, if the axes are right-handed. A picture without depth shows the first alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge.clip import Clip
from edge.notices import Notices
from edge.skeleton import CORE15, Float
from edge.windows import Stream, Windows

_AT = {name: i for i, name in enumerate(CORE15)}
_LEGS = np.array([[_AT[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")] for side in "lr"])
_TRUNK = [_AT["pelvis"], _AT["neck"]]
BENT = 0.3
"""How far a knee lies beside the line from hip to ankle, by the length of the upper leg, to count: about 35°. Of legs
that are straight a sensor's noise makes either."""
POSTURE_RULE = "3"
"""The version of `cues`, and of what they are made from a file by; part of the name that they are kept under."""
SEE = "docs/start.md, 'The right way round'"
NONE = np.zeros(7, np.float32)
ENOUGH, LEGS = 2.0, 2.0
"""Seconds of trunks and of bent legs without which nothing is said."""
LOOKS, MOST = 20, 120.0
"""Seconds of a stream without which nothing is said of it, and after which older ones count by half, so that what was
mended is not held against it for long."""
SILENT_S = 1.5


def cues(joints: Float, visible: Float) -> Float:
    """joints (N, 15, 3), visible (N, 15) → (N, 7): where the trunk points (x, y, z; of length 1), whether it was seen,
    how far bent knees lie before the legs, how far aside at all, and whether z seems to be a confidence."""
    pelvis, neck = np.moveaxis(joints[:, _TRUNK], 1, 0)
    up = neck - pelvis
    long = np.linalg.norm(up, axis=-1, keepdims=True)
    seen = (visible[:, _TRUNK] > 0).all(1) & (long[:, 0] > 0)
    up = np.divide(up, long, out=np.zeros_like(up), where=long > 0) * seen[:, None]
    hip, knee, ankle = np.moveaxis(joints[:, _LEGS], 2, 0)  # (N, 2, 3) each
    leg, upper = ankle - hip, knee - hip
    along = (upper * leg).sum(-1) / np.maximum((leg * leg).sum(-1), 1e-12)
    aside = upper - np.clip(along, 0, 1)[..., None] * leg
    aside /= np.maximum(np.linalg.norm(upper, axis=-1, keepdims=True), 1e-12)
    far = np.linalg.norm(aside, axis=-1)
    hips = (visible[:, _LEGS[:, 0]] > 0).all(1, keepdims=True)
    z = joints[..., 2]
    deep = (z != 0).any(1)  # without depth nothing is before anything
    sure = seen & deep & ((z >= 0) & (z <= 1)).all(1) & (long[:, 0] > 10)  # nobody is so thin
    far *= (far > BENT) & (visible[:, _LEGS] > 0).all(-1) & hips & deep[:, None]
    # By the leg and not by the trunk, which may bend further than it stands.
    ahead = np.cross((hip[:, 0] - hip[:, 1])[:, None], -leg)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-12)
    before = np.where(far > 0, (aside * ahead).sum(-1), 0)
    out: Float = np.column_stack([up, seen, before.sum(1), far.sum(1), sure]).astype(np.float32)
    return out


def wrong(total: Float) -> str:
    """What `cues`, times the seconds that each stands for and added up (7,), say is the wrong way round, and which axes
    would be right, as `haad-edge axes --to` takes them; or ''."""
    x, y, z, trunks, before, far, sure = (float(v) for v in total)
    if trunks < ENOUGH:
        return ""
    if sure > 0.9 * trunks:
        return "the third number seems to be a confidence, which is no depth: x and y alone, and it as 'visible'"
    if down(total):
        if z == 0:
            return "heads are below hips: unless people stand on them, y points up where pixels have it down"
        return "heads are below hips: unless people stand on them, x,-y,-z would be right"
    axis, most = max(("x", x), ("z", z), key=lambda a: abs(a[1]))
    if abs(most) > 0.7 * trunks and abs(y) < 0.6 * trunks:
        right = {("z", True): "x,z,-y", ("z", False): "x,-z,y", ("x", True): "-y,x,z", ("x", False): "y,-x,z"}
        return f"bodies lie along {axis}: unless people do, {right[axis, most > 0]} would be right"
    if far >= LEGS and before < -0.5 * far:
        return "knees bend backwards, an axis is turned over or left and right are exchanged: x,y,-z would be right"
    return ""


def down(total: Float) -> bool:
    """Whether heads are below hips, in sums as `wrong` takes them."""
    return bool(total[3] >= ENOUGH and total[1] < -0.5 * total[3])


def faults(of: Mapping[str, Float]) -> Iterator[tuple[str, str]]:
    """What is `wrong` with a folder of these categories, by their sums: ('', why), or else (category, why) of those in
    which heads alone are below hips, as of what was added later, from another tracker."""
    if why := wrong(np.sum([NONE, *of.values()], axis=0)):
        yield "", why
    else:
        yield from ((name, wrong(total)) for name, total in of.items() if down(total))


def unsure(total: Float) -> str:
    """What cannot be told from sums in which nothing seems `wrong`, or ''."""
    if total[3] < ENOUGH:
        return "too little is seen to tell"
    return "" if total[5] >= LEGS else "hardly a knee is seen to bend, so left and right are not checked"


class Posture:
    """Looks at streams once a second, and says whose people are the wrong way round: each thing once of a stream."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._known: dict[str, tuple[Stream, Float, str]] = {}

    def look(self, windows: Windows, now: float) -> None:
        """`now` is monotonic seconds, as `Stream.heard` is."""
        # A stream of the same name that began anew is another one.
        self._known = {n: k for n, k in self._known.items() if windows.streams.get(n) is k[0]}
        streams = [s for s in windows.streams.values() if now - s.heard <= SILENT_S and s.slots]
        if not streams:
            return
        people = [len(s.slots) for s in streams]
        found = cues(*windows.latest(np.array([slot for s in streams for slot in s.slots.values()], np.intp)))
        fresh = np.add.reduceat(found, np.cumsum([0, *people[:-1]]), axis=0) / np.array(people)[:, None]
        for stream, new in zip(streams, fresh, strict=True):
            _, total, told = self._known.get(stream.name, (stream, NONE, ""))
            total = total + new
            if total[3] > MOST:
                total = total / 2
            why = wrong(total) if total[3] >= LOOKS else ""
            if why and why != told:
                self._notices.say(f"stream {stream.name}: {why} → {SEE}", f"posture {stream.name}")
            self._known[stream.name] = stream, total, why or told


def clip_cues(clip: Clip) -> Float:
    """The `cues` (1, 7) of a whole clip, in seconds."""
    total: Float = cues(clip.joints, clip.visible).sum(0, keepdims=True) / np.float32(clip.fps)
    return total


def turned(clip: Clip, columns: Sequence[int], signs: Sequence[int]) -> Clip:
    """The clip in other axes: where each comes from, and its sign."""
    return replace(clip, joints=clip.joints[..., columns] * np.array(signs, np.float32))


def of_clips(clips: Iterable[Clip]) -> str:
    """What seems `wrong` with clips of one folder, or ''."""
    return wrong(np.sum([NONE[None], *map(clip_cues, clips)], axis=(0, 1)))
