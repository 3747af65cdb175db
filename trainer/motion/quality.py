"""Measures how good generated motion is, in physical units and shares, for comparison with the same of real clips.

The first three measures look at one clip in its own metres and seconds, the others at sets of clips as *rows*:
normalised bodies (N, F·45) in metres of the reference body, so that place, heading and body size make no difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip
from edge.skeleton import CORE15, PARENTS, J

CONTACT_M = 0.05
"""An ankle no higher than this above its lowest place is standing."""
_ANKLES = [CORE15.index(n) for n in ("l_ankle", "r_ankle")]
Rows = NDArray[np.float32]


def bone_drift(clip: Clip) -> float:
    """How much bones change their length within the clip, in percent: deviation over mean, averaged over the bones.

    0 for a rigid skeleton. Frames where either end is hidden do not count; NaN when none is left.
    """
    shares = []
    for j in range(1, J):
        seen = (clip.visible[:, j] > 0) & (clip.visible[:, PARENTS[j]] > 0)
        length = np.linalg.norm(clip.joints[seen, j] - clip.joints[seen, PARENTS[j]], axis=-1)
        if len(length) and length.mean() > 0:
            shares.append(100 * length.std() / length.mean())
    return float(np.mean(shares)) if shares else float("nan")


def foot_sliding(clip: Clip) -> float:
    """The mean horizontal speed of a standing ankle, in metres per second.

    An ankle is standing between two frames if in both it is within CONTACT_M of its lowest place in the clip (fifth
    percentile). 0 for planted feet; NaN if no ankle is seen standing in two successive frames.
    """
    speeds = []
    for j in _ANKLES:
        seen = clip.visible[:, j] > 0
        if not seen.any():
            continue
        place = clip.joints[:, j]
        low = seen & (place[:, 1] <= np.percentile(place[seen, 1], 5) + CONTACT_M)
        both = low[1:] & low[:-1]
        speeds.append(np.linalg.norm(np.diff(place[:, [0, 2]], axis=0), axis=-1)[both] * clip.fps)
    found = np.concatenate(speeds) if speeds else np.empty(0)
    return float(found.mean()) if len(found) else float("nan")


def jerk(clip: Clip) -> float:
    """The mean magnitude of the third derivative of the joints' places, in metres per second cubed.

    By finite differences, so noise makes it grow with the frame rate: compare clips of the same rate. NaN if no joint
    is seen in four successive frames.
    """
    seen = clip.visible > 0
    whole = seen[3:] & seen[2:-1] & seen[1:-2] & seen[:-3]
    size = np.linalg.norm(np.diff(clip.joints.astype(np.float64), n=3, axis=0), axis=-1) * clip.fps**3
    return float(size[whole].mean()) if whole.any() else float("nan")


def distances(rows: Rows, others: Rows) -> Rows:
    """Root mean square distance of a joint, over frames and joints, between every two: (N, F·45), (M, F·45) → (N, M).

    In metres of the reference body.
    """
    # The square of the difference is expanded: the differences themselves, (N, M, F·45), would not fit into memory.
    joints = rows.shape[1] / 3
    square = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * rows @ others.T
    found: Rows = np.sqrt(np.maximum(square, 0) / joints).astype(np.float32)
    return found


def diversity(rows: Rows) -> float:
    """The mean distance between two different rows, in metres of the reference body. NaN for fewer than two rows."""
    if len(rows) < 2:
        return float("nan")
    return float(distances(rows, rows)[~np.eye(len(rows), dtype=bool)].mean())


def group_diversity(rows: Rows, group: NDArray[np.int64]) -> float:
    """`diversity` within each group of two rows or more, averaged over the groups."""
    found = [diversity(rows[group == g]) for g in np.unique(group) if (group == g).sum() > 1]
    return float(np.mean(found)) if found else float("nan")


def nearest(rows: Rows, training: Rows) -> tuple[Rows, NDArray[np.int64]]:
    """The distance (N,) of each row to the nearest training row, in metres of the reference body, and its index."""
    d = distances(rows, training)
    which = d.argmin(1)
    return d[np.arange(len(d)), which], which


def copied(made: Rows, real: Rows) -> float:
    """The share of generated clips nearer to the training clips than the held-out real clip each was made from.

    `made` and `real` (N,) are distances to the nearest training clip. A model that had learned to copy would come near
    1. Smoothing alone brings clips nearer to everything, so compare it with the share of real clips smoothed alike.
    """
    return float((made < real).mean())
