"""Whether bodies come the right way round. An axis that points the wrong way is no error of any message or file, and is
judged all the same, only worse: on UTD-MHAD with three to seven times the error (docs/start.md, "The right way round").

    poses (N, 15, 3) ─► cues (N, 6), to be added up over a folder's clips or a stream's seconds ─► what seems wrong

A trunk tells where up is. Knees tell left from right: they bend forwards, and forwards follows from up and left where
the axes are right-handed. A picture without depth shows the first alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge.clip import Clip
from edge.notices import Notices
from edge.skeleton import CORE15, Float
from edge.windows import Windows

_AT = {name: i for i, name in enumerate(CORE15)}
_LEGS = np.array([[_AT[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")] for side in "lr"])
_TRUNK = [_AT[n] for n in ("pelvis", "neck", "l_shoulder", "r_shoulder", "l_hip", "r_hip")]
BENT = 0.3
"""How far a knee lies beside the line from hip to ankle, by the length of the upper leg, to count: about 35°. Of legs
that are straight a sensor's noise makes either."""
POSTURE_RULE = "1"
"""The version of `cues`; part of the name that they are kept under."""
ENOUGH, LEGS = 2.0, 2.0
"""Seconds of trunks and of bent legs without which nothing is said."""
MOST = 600.0
"""Seconds of a stream after which older ones count by half, so that what was mended is not held against it."""
SILENT_S = 1.5


def cues(joints: Float, visible: Float) -> Float:
    """joints (N, 15, 3), visible (N, 15) → (N, 6): where the trunk points (x, y, z; of length 1), whether it was seen,
    how far bent knees lie before the legs, and how far aside at all."""
    pelvis, neck, l_shoulder, r_shoulder, l_hip, r_hip = np.moveaxis(joints[:, _TRUNK], 1, 0)
    up = neck - pelvis
    long = np.linalg.norm(up, axis=-1, keepdims=True)
    seen = (visible[:, _TRUNK] > 0).all(1) & (long[:, 0] > 0)
    up = np.divide(up, long, out=np.zeros_like(up), where=long > 0)
    ahead = _unit(np.cross(l_shoulder - r_shoulder + l_hip - r_hip, up))
    hip, knee, ankle = np.moveaxis(joints[:, _LEGS], 2, 0)  # (N, 2, 3) each
    leg, upper = ankle - hip, knee - hip
    along = (upper * leg).sum(-1) / np.maximum((leg * leg).sum(-1), 1e-12)
    aside = upper - np.clip(along, 0, 1)[..., None] * leg
    aside /= np.maximum(np.linalg.norm(upper, axis=-1, keepdims=True), 1e-12)
    far = np.linalg.norm(aside, axis=-1)
    far *= (visible[:, _LEGS] > 0).all(-1) & (far > BENT) & seen[:, None]
    before = np.where(far > 0, (aside * ahead[:, None]).sum(-1), 0)
    flat = (joints[..., 2] == 0).all(1)
    far[flat] = 0  # without depth nothing is before anything
    out: Float = np.column_stack([up * seen[:, None], seen, before.sum(1), far.sum(1)]).astype(np.float32)
    return out


def wrong(total: Float) -> str:
    """What `cues`, times the seconds that each stands for and added up (6,), say is the wrong way round, and which axes
    would be right, as `haad-edge axes --to` takes them; or ''."""
    x, y, z, trunks, before, far = (float(v) for v in total)
    if trunks < ENOUGH:
        return ""
    if y < -0.5 * trunks:
        return "heads are below hips, y points the wrong way: x,-y,-z would be right"
    axis, most = max(("x", x), ("z", z), key=lambda a: abs(a[1]))
    if abs(most) > 0.7 * trunks and abs(y) < 0.6 * trunks:
        right = {("z", True): "x,z,-y", ("z", False): "x,-z,y", ("x", True): "-y,x,z", ("x", False): "y,-x,z"}
        return f"bodies lie along {axis}; if nobody does, {right[axis, most > 0]} would be right"
    if far >= LEGS and before < -0.4 * far:
        return "knees bend backwards, an axis is turned over or left and right are exchanged: x,y,-z would be right"
    return ""


class Posture:
    """Looks at streams once a second, and says whose people are the wrong way round."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._total: dict[str, Float] = {}

    def look(self, windows: Windows, now: float) -> None:
        """`now` is monotonic seconds, as `Stream.heard` is."""
        streams = [s for s in windows.streams.values() if now - s.heard <= SILENT_S and s.slots]
        slots = np.array([slot for s in streams for slot in s.slots.values()], np.intp)
        if not len(slots):
            return
        of = np.repeat(np.arange(len(streams)), [len(s.slots) for s in streams])
        fresh = np.zeros((len(streams), 6), np.float32)
        np.add.at(fresh, of, cues(*windows.latest(slots)))
        before, self._total = self._total, {name: t for name, t in self._total.items() if name in windows.streams}
        for stream, new in zip(streams, fresh, strict=True):
            total = before.get(stream.name, np.zeros(6, np.float32)) + new
            if total[3] > MOST:
                total = total / 2
            self._total[stream.name] = total
            if total[3] >= 10 * ENOUGH and (why := wrong(total)):
                self._notices.say(f"stream {stream.name}: {why}", f"posture {stream.name}")


def clip_cues(clip: Clip) -> Float:
    """The `cues` (1, 6) of a whole clip, in seconds."""
    total: Float = cues(clip.joints, clip.visible).sum(0, keepdims=True) / np.float32(clip.fps)
    return total


def of_clips(clips: Iterable[Clip]) -> str:
    """What seems `wrong` with clips of one folder, or ''."""
    return wrong(np.sum([np.zeros((1, 6), np.float32), *map(clip_cues, clips)], axis=(0, 1)))


def _unit(v: Float) -> Float:
    out: Float = v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    return out
