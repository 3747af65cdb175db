"""Checks whether bodies are the right way round, which no message or file format can tell.

    poses (N, 15, 3) ─► cues (N, 7), added up over a folder's clips or a stream's seconds ─► what seems wrong

Poses with an axis that points the wrong way are valid and are judged, but with up to sixteen times the error
(docs/start.md, "The right way round"). The trunk shows which way is up. The knees show whether left and right are
exchanged: they bend forwards, and forwards follows from the leg and from which hip is the left one, if the axes are
right-handed. Poses without depth show only the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge.clip import Clip
from edge.skeleton import CORE15, Float
from edge.windows import Stream, Windows

_AT = {name: i for i, name in enumerate(CORE15)}
_LEGS = np.array([[_AT[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")] for side in "lr"])
_TRUNK = [_AT["pelvis"], _AT["neck"]]
BENT = 0.3
"""How far a knee must lie off the line from hip to ankle, relative to the upper leg's length, to count as bent: about
35°. In straighter legs the sensor's noise decides which way the knee seems to bend."""
POSTURE_RULE = "3"
"""The version of `cues` and of how a clip file is read for them; part of the name under which they are cached."""
SEE = "docs/start.md, 'The right way round'"
NONE = np.zeros(7, np.float32)
ENOUGH, LEGS = 2.0, 2.0
"""Seconds of visible trunks and of bent legs that are needed for a verdict on them."""
LOOKS, MOST = 20, 120.0
"""Seconds of a stream that are needed for a verdict on it, and seconds after which what was seen so far counts by half,
so that a stream that was corrected is soon no longer blamed."""
SILENT_S = 1.5


def cues(joints: Float, visible: Float) -> Float:
    """Measure each pose's orientation: joints (N, 15, 3), visible (N, 15) → (N, 7).

    The columns: the trunk's direction (x, y, z; length 1), whether the trunk was seen, how far bent knees lie in front
    of the legs, how far they lie off the legs in any direction, and whether z seems to be a confidence.
    """
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
    deep = (z != 0).any(1)  # without depth nothing is in front of anything
    sure = seen & deep & ((z >= 0) & (z <= 1)).all(1) & (long[:, 0] > 10)  # no body has so little depth for its height
    far *= (far > BENT) & (visible[:, _LEGS] > 0).all(-1) & hips & deep[:, None]
    # Relative to the leg and not to the trunk, which may be bent so far that it does not show the way up.
    ahead = np.cross((hip[:, 0] - hip[:, 1])[:, None], -leg)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-12)
    before = np.where(far > 0, (aside * ahead).sum(-1), 0)
    out: Float = np.column_stack([up, seen, before.sum(1), far.sum(1), sure]).astype(np.float32)
    return out


def wrong(total: Float) -> str:
    """Say what is the wrong way round, and which axes would be right in the form of `haad-edge axes --to`; or ''.

    `total` (7,) is the sum of `cues`, each times the seconds that it stands for.
    """
    x, y, z, trunks, before, far, sure = (float(v) for v in total)
    if trunks < ENOUGH:
        return ""
    if sure > 0.9 * trunks:
        return "z seems to be a confidence, not a depth: send x and y as 'joints', and the confidence as 'visible'"
    if down(total):
        if z == 0:
            return (
                "heads are below hips: unless people stand on their heads, y points up, but pixels have y down; "
                "or the layout is not the tracker's"
            )
        return "heads are below hips: unless people stand on their heads, x,-y,-z would be right"
    axis, most = max(("x", x), ("z", z), key=lambda a: abs(a[1]))
    if abs(most) > 0.7 * trunks and abs(y) < 0.6 * trunks:
        right = {("z", True): "x,z,-y", ("z", False): "x,-z,y", ("x", True): "-y,x,z", ("x", False): "y,-x,z"}
        return f"bodies lie along {axis}: unless people do lie, {right[axis, most > 0]} would be right"
    if far >= LEGS and before < -0.5 * far:
        return "knees bend backwards: an axis is reversed, or left and right are exchanged; x,y,-z would be right"
    return ""


def down(total: Float) -> bool:
    """Whether heads are below hips, in sums as `wrong` takes them (7,)."""
    return bool(total[3] >= ENOUGH and total[1] < -0.5 * total[3])


def faults(of: Mapping[str, Float]) -> Iterator[tuple[str, str]]:
    """Say what is `wrong` with a folder, given each category's sum of cues (7,).

    Yields ('', why) for the whole folder; or else (category, why) for each category in which heads are below hips, as
    when its clips were added later from another tracker.
    """
    if why := wrong(np.sum([NONE, *of.values()], axis=0)):
        yield "", why
    else:
        yield from ((name, wrong(total)) for name, total in of.items() if down(total))


def unsure(total: Float) -> str:
    """Say what could not be checked in sums in which nothing seems `wrong`, or ''."""
    if total[3] < ENOUGH:
        return "too little is seen to tell"
    return "" if total[5] >= LEGS else "hardly any knee is seen bent, so left and right could not be checked"


class PostureCheck:
    """Finds streams whose people are the wrong way round."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stream, Float, str]] = {}

    def find(self, windows: Windows, now: float) -> dict[str, str]:
        """See `edge.ingest.health.Check`."""
        # A stream that ended and began again under the same name counts as a new one.
        self._known = {n: k for n, k in self._known.items() if windows.streams.get(n) is k[0]}
        streams = [s for s in windows.streams.values() if now - s.heard <= SILENT_S and s.slots]
        if streams:
            people = [len(s.slots) for s in streams]
            found = cues(*windows.latest(np.array([slot for s in streams for slot in s.slots.values()], np.intp)))
            fresh = np.add.reduceat(found, np.cumsum([0, *people[:-1]]), axis=0) / np.array(people)[:, None]
            for stream, new in zip(streams, fresh, strict=True):
                _, total, _ = self._known.get(stream.name, (stream, NONE, ""))
                total = total + new
                if total[3] > MOST:
                    total = total / 2
                self._known[stream.name] = stream, total, wrong(total) if total[3] >= LOOKS else ""
        return {name: f"{why} → {SEE}" for name, (_, _, why) in self._known.items() if why}


def clip_cues(clip: Clip) -> Float:
    """The sum of a clip's `cues` (1, 7), in seconds."""
    total: Float = cues(clip.joints, clip.visible).sum(0, keepdims=True) / np.float32(clip.fps)
    return total


def turned(clip: Clip, columns: Sequence[int], signs: Sequence[int]) -> Clip:
    """The clip in other axes: `columns` says which old axis each new one is, `signs` its sign."""
    return replace(clip, joints=clip.joints[..., columns] * np.array(signs, np.float32))


def of_clips(clips: Iterable[Clip]) -> str:
    """Say what seems `wrong` with the clips of one folder, or ''."""
    return wrong(np.sum([NONE[None], *map(clip_cues, clips)], axis=(0, 1)))
