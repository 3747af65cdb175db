"""Defines layouts, named lists of joints, and maps them by name onto `core15`.

    foreign joints (…, J, 2|3) ──lift──► (…, J, 3) y-up ──Layout.to_core15──► (…, 15, 3) + visible (…, 15)

A joint that a layout lacks is a *blend*: a weighted mean of joints that it has. A blend is visible when more
than half of its weight is; its position is then the mean over the visible part. So a neck needs both
shoulders, while a head survives a hidden ear. A missing joint is always marked by the mask, never by (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge.errors import ClipError

Float = NDArray[np.float32]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CORE15 = _names(
    "pelvis neck head l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist l_hip l_knee l_ankle r_hip r_knee r_ankle"
)
J = len(CORE15)
PARENTS = (-1, 0, 1, 1, 3, 4, 1, 6, 7, 0, 9, 10, 0, 12, 13)
"""The parent of each core15 joint; bones are the 14 (joint, parent) pairs."""
MIRROR = np.array([0, 1, 2, 6, 7, 8, 3, 4, 5, 12, 13, 14, 9, 10, 11])
"""core15 with left and right exchanged: `joints[..., MIRROR, :] * (-1, 1, 1)` is the mirrored person."""
COORDINATE_LIMIT = 1e6
"""A coordinate beyond this many metres or pixels (image heights, if a size is given) is an error value of a sensor."""
THRICE = np.ascontiguousarray(np.kron(np.eye(J, dtype=np.float32), np.ones((1, 3), np.float32)))
"""(15, 45): a product with it copies each joint's number to its three coordinates, faster than a broadcast does."""

_MID_SHOULDERS = {"l_shoulder": 0.5, "r_shoulder": 0.5}
_MID_HIPS = {"l_hip": 0.5, "r_hip": 0.5}
_FACE = {"l_ear": 0.3, "r_ear": 0.3, "nose": 0.4}


@dataclass(frozen=True)
class Layout:
    """A named joint order, and the blends that stand in for the core15 joints it lacks."""

    name: str
    joints: tuple[str, ...]
    source: str
    blends: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def size(self) -> int:
        return len(self.joints)

    @cached_property
    def matrix(self) -> Float:
        """(15, J) weights; a row sums to 1, or to 0 where core15's joint does not exist in this layout."""
        m = np.zeros((J, self.size), np.float32)
        for row, name in enumerate(CORE15):
            for joint, weight in self.blends.get(name, {name: 1.0} if name in self.joints else {}).items():
                m[row, self.joints.index(joint)] = weight
        return m

    @cached_property
    def spread(self) -> Float:
        """`matrix` for coordinates side by side, (J·3, 45): one product maps many people at once."""
        return np.ascontiguousarray(np.kron(self.matrix.T, np.eye(3, dtype=np.float32)))

    @cached_property
    def pick(self) -> NDArray[np.intp] | None:
        """Column indices when every core15 joint is simply one of this layout's joints, else None."""
        m = self.matrix
        return m.argmax(1) if bool(((m == 1).sum(1) == 1).all()) else None

    def to_core15(self, joints: Float, visible: Float) -> tuple[Float, Float]:
        """Map `joints` (…, J, 3) and `visible` (…, J) in [0, 1] to core15 (…, 15, 3) and (…, 15).

        Hidden joints come out as zeros with visibility 0; nothing downstream reads their position.
        """
        if self.pick is not None:
            v = np.take(visible, self.pick, -1)
            return np.take(joints, self.pick, -2) * (v > 0)[..., None], v
        shape = visible.shape[:-1]
        weight = visible.astype(np.float32, copy=False) @ self.matrix.T
        seen_only = (joints * visible[..., None]).astype(np.float32, copy=False)
        total = seen_only.reshape(*shape, 3 * self.size) @ self.spread
        seen = weight > 0.5
        scale = np.divide(1, weight, out=np.zeros_like(weight), where=seen)
        return total.reshape(*shape, J, 3) * scale[..., None], weight * seen


def lift(joints: NDArray[np.floating], size: tuple[float, float] | None = None) -> Float:
    """Turn image keypoints (…, J, 2) in pixels, y down, into (…, J, 3), y up, z = 0; 3-D joints pass unchanged.

    With `size` (width, height) the unit becomes the image height and y counts from the lower edge.
    Scale does not matter to the model, which normalises it, but finite precision does.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # impossible coordinates are masked later, without a warning
        if joints.shape[-1] == 3:
            return np.ascontiguousarray(joints, np.float32)
        out = np.zeros((*joints.shape[:-1], 3), np.float32)
        height = size[1] if size else None
        out[..., 0] = joints[..., 0] / height if height else joints[..., 0]
        out[..., 1] = 1 - joints[..., 1] / height if height else -joints[..., 1]
        return out


def mask_bad(joints: Float, visible: Float | None, min_confidence: float = 0.3) -> tuple[Float, Float, int]:
    """Hide joints below the confidence, and those with impossible coordinates: not finite, or beyond the limit.

    `joints` (…, J, 3), `visible` (…, J) confidences or None for all seen. Returns clean joints, visible in {0, 1}
    and how many joints were claimed visible at impossible coordinates. The inputs are not changed.
    """
    if visible is None:
        visible = np.ones(joints.shape[:-1], np.float32)
    else:
        visible = (visible >= min_confidence).astype(np.float32)  # NaN compares false: hidden
    size = np.abs(joints)
    if size.max(initial=0) < COORDINATE_LIMIT:  # the usual case; a NaN makes the comparison false
        return joints, visible, 0
    good: NDArray[np.bool_] = np.asarray((size < COORDINATE_LIMIT).all(-1))
    bad = int((~good & (visible > 0)).sum())
    return np.where(good[..., None], joints, 0).astype(np.float32), visible * good.astype(np.float32), bad


def at_origin(joints: NDArray[np.floating]) -> NDArray[np.bool_] | None:
    """Which joints of (…, J, 2|3), as sent, were not found by the tracker, judging by their place; None: none.

    Trackers put joints that they did not find at the origin. Two or more joints of one body there count as not found; a
    single one may be the origin that the others are measured from.
    """
    zero = joints == 0
    if np.count_nonzero(zero) < 2 * joints.shape[-1]:
        return None
    there: NDArray[np.bool_] = zero[..., 0] & zero[..., 1]
    if joints.shape[-1] == 3:
        there &= zero[..., 2]
    there &= there.sum(-1, keepdims=True) > 1
    return there if there.any() else None


def cleaned(
    joints: NDArray[np.floating],
    visible: Float | None,
    size: tuple[float, float] | None = None,
    min_confidence: float = 0.3,
) -> tuple[Float, Float, int]:
    """`lift`, then `mask_bad`. Joints `at_origin` are hidden too, and counted if they were claimed visible."""
    lost = at_origin(joints)
    clean, seen, bad = mask_bad(lift(joints, size), visible, min_confidence)
    if lost is None:
        return clean, seen, bad
    bad += int((lost & (seen > 0)).sum())
    return clean, seen * ~lost, bad


_COCO = (
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle"
)
_SMPL22 = (
    "pelvis l_hip r_hip spine1 l_knee r_knee spine2 l_ankle r_ankle spine3 l_foot r_foot "
    "neck l_collar r_collar head l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist"
)
_IMAGE_BLENDS = {"pelvis": _MID_HIPS, "neck": _MID_SHOULDERS, "head": _FACE}

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("core15", CORE15, "this project"),
            Layout("coco17", _names(_COCO), "COCO keypoints, person_keypoints_val2017.json", _IMAGE_BLENDS),
            Layout(
                "halpe26",
                _names(_COCO + " head_top neck hip l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel"),
                "Halpe-FullBody, first 26 keypoints",
                {"pelvis": {"hip": 1.0}, "head": _FACE},
            ),
            Layout(
                "body25",
                _names(
                    "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist mid_hip r_hip r_knee r_ankle "
                    "l_hip l_knee l_ankle r_eye l_eye r_ear l_ear l_big_toe l_small_toe l_heel "
                    "r_big_toe r_small_toe r_heel"
                ),
                "OpenPose output documentation, BODY_25",
                {"pelvis": {"mid_hip": 1.0}, "head": _FACE},
            ),
            Layout(
                "mediapipe33",
                _names(
                    "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth r_mouth "
                    "l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_pinky r_pinky l_index r_index "
                    "l_thumb r_thumb l_hip r_hip l_knee r_knee l_ankle r_ankle l_heel r_heel "
                    "l_foot_index r_foot_index"
                ),
                "MediaPipe Pose Landmarker (BlazePose) landmark model",
                _IMAGE_BLENDS,
            ),
            Layout("smpl24", _names(_SMPL22 + " l_hand r_hand"), "SMPL body model, 24 joints"),
            Layout("smpl22", _names(_SMPL22), "SMPL body model without hands (SMPL-H body, AMASS)"),
            Layout(
                "h36m17",
                _names(
                    "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle spine neck nose head "
                    "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist"
                ),
                "Human3.6M, the usual 17 of 32 joints (VideoPose3D's order); its thorax is our neck",
                {"head": {"nose": 0.5, "head": 0.5}},
            ),
            Layout(
                "ntu25",
                _names(
                    "pelvis spine_mid neck_upper head l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist "
                    "r_hand l_hip l_knee l_ankle l_foot r_hip r_knee r_ankle r_foot neck "
                    "l_hand_tip l_thumb r_hand_tip r_thumb"
                ),
                "NTU RGB+D (Kinect v2) joint list; its joint 21, between the shoulders, is our neck",
            ),
            Layout(
                "kinect20",
                _names(
                    "pelvis spine neck head l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist r_hand "
                    "l_hip l_knee l_ankle l_foot r_hip r_knee r_ankle r_foot"
                ),
                "Kinect for Windows SDK 1.x, NUI_SKELETON_POSITION_INDEX; shoulder centre is our neck",
            ),
        )
    }
)


def get_layout(name: str) -> Layout:
    """The layout of that name. Raises ClipError that names the layouts there are."""
    try:
        return LAYOUTS[name]
    except (KeyError, TypeError):
        raise ClipError(
            f"unknown layout {name!r:.60}", why="joint orders differ", fix=f"use one of: {', '.join(LAYOUTS)}"
        ) from None
