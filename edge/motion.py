"""Makes clips of motion from kinematic formulas, for tests and checks, and as the source of the demo's clips.

No recorded data is used.

    MOTIONS[name] ──keyframes over phase──► joint angles ──forward kinematics──► joints about the pelvis
             seed ──► body, tempo, size, wander                        floor and path ──► joints in the room

Everything is a function of time, never of the frame index, so the same seed gives the same movement at 15 and at
60 fps. It looks like a person to a pose model, but does not claim to show how people move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge.clip import MAX_FRAMES, Clip
from edge.errors import ClipError
from edge.skeleton import CORE15, PARENTS, J

Array = NDArray[np.float64]
Keys = tuple[tuple[float, float], ...]

HEIGHT_M = 1.74
"""Mean standing height of the people made."""
SOURCE = "haad-edge kinematic formulas"
RADIUS_M = 1.5
"""A walk follows a circle of this radius, so that it stays in a room."""
NOISE_M = 0.0065
"""Root mean square distance of a joint from its true place: about the noise of a depth sensor."""
SOFTNESS_M = 0.025
"""How soft the minimum over the joints' heights is: the lowest joint changes gradually within this height."""

# Each joint's place relative to its parent, standing with hanging arms: (right, up, back) as fractions of
# body height. Lengths from Drillis & Contini (1966) as printed in D. A. Winter, "Biomechanics and Motor
# Control of Human Movement", figure 4.1: ankle 0.039, knee 0.285, hip 0.530, shoulder 0.818, eye 0.936 high;
# upper arm 0.186, forearm 0.146 long. Shoulder and hip centres lie inside its outline (0.259, 0.191 wide),
# the pelvis 0.02 above the hips and the neck 0.012 above the shoulders, as pose layouts have them.
_REST: Mapping[str, tuple[float, float, float]] = {
    "pelvis": (0, 0, 0), "neck": (0, 0.280, 0), "head": (0, 0.095, -0.012),
    "shoulder": (0.105, -0.012, 0), "elbow": (0, -0.186, 0), "wrist": (0, -0.146, 0),
    "hip": (0.052, -0.020, 0), "knee": (0, -0.245, 0), "ankle": (0, -0.246, 0),
}  # fmt: skip

# How far a joint's centre stays from the floor it lies on, as a fraction of height; the ankle's is Winter's.
_FLESH: Mapping[str, float] = {
    "pelvis": 0.060, "neck": 0.055, "head": 0.055, "shoulder": 0.055, "elbow": 0.025, "wrist": 0.020,
    "hip": 0.055, "knee": 0.030, "ankle": 0.039,
}  # fmt: skip

# The turns at the start of each bone, outermost first: (angle, axis, sign). Positive is: lean forward, bend
# or look right, raise forward, move or rotate outwards, flex. On the left, turns about y and z change sign.
_TURNS: Mapping[str, tuple[tuple[str, int, int], ...]] = {
    "pelvis": (("yaw", 1, 1), ("aim", 1, 1), ("tilt", 0, 1), ("aim", 1, -1)),
    "neck": (("lean", 0, -1), ("bend", 2, -1), ("twist", 1, -1)),
    "head": (("nod", 0, -1), ("look", 1, -1)),
    "elbow": (("raise", 0, 1), ("out", 2, 1), ("rotate", 1, -1)),
    "wrist": (("elbow", 0, 1),),
    "knee": (("hip", 0, 1), ("splay", 2, 1)),
    "ankle": (("knee", 0, -1),),
}
_RELAXED: Mapping[str, Keys] = {
    "raise": ((0, 4),), "out": ((0, 8),), "elbow": ((0, 14),), "hip": ((0, 2),), "knee": ((0, 4),),
    "splay": ((0, 3),),
}  # fmt: skip
_STEADY = frozenset({"hip", "knee", "splay"})


@dataclass(frozen=True, slots=True)
class Motion:
    """One motion as keyframes: angle name → ((phase, degrees), …); an angle's `l_` or `r_` form takes precedence.

    A phase runs from 0 to 1 over a cycle of `period` seconds; with `once` it counts cycles from the clip's
    start, and the last pose is held. `alternate`: the right side is half a cycle behind the left. `stride`:
    how far the root moves in a cycle, in leg lengths; None keeps the feet in place. `hop`: metres, twice a cycle.
    """

    about: str
    period: float
    keys: Mapping[str, Keys]
    once: bool = False
    alternate: bool = False
    stride: float | None = None
    hop: float = 0.0


# Walking's hip and knee curves follow Winter's normal-gait figures, coarsely (phase 0 = heel contact).
MOTIONS: Mapping[str, Motion] = MappingProxyType({
    "stand": Motion("stands, shifting weight and looking about", 7.0, {
        "l_splay": ((0, 1), (0.4, 5), (0.7, 5)), "r_splay": ((0, 5), (0.4, 1), (0.7, 1)),
        "look": ((0, 0), (0.3, 18), (0.6, 0), (0.8, -14)), "twist": ((0, 0), (0.35, 5), (0.8, -4)),
    }),
    "walk": Motion("walks round a circle", 1.1, {
        "hip": ((0, 26), (0.12, 19), (0.3, 3), (0.5, -14), (0.6, -9), (0.85, 29)),
        "knee": ((0, 5), (0.14, 17), (0.4, 6), (0.6, 36), (0.72, 60), (0.95, 4)),
        "raise": ((0, -20), (0.5, 22)), "elbow": ((0, 14), (0.5, 32)), "lean": ((0, 4),),
        "twist": ((0, -6), (0.5, 6)), "splay": ((0, 1),),
    }, alternate=True, stride=1.52),
    "wave": Motion("waves the raised right hand", 0.75, {
        "r_raise": ((0, 4),), "r_out": ((0, 88), (0.5, 94)), "r_rotate": ((0, 84),),
        "r_elbow": ((0, 62), (0.5, 112)), "bend": ((0, -3),), "nod": ((0, -4),),
    }),
    "clap": Motion("claps in front of the chest", 0.5, {
        "raise": ((0, 38), (0.5, 44)), "out": ((0, 12), (0.5, 2)), "elbow": ((0, 74), (0.5, 84)),
        "rotate": ((0, -8), (0.5, -36)), "nod": ((0, 8),),
    }),
    "pick_up": Motion("bends down, takes something off the floor with the right hand, stands up", 3.2, {
        "lean": ((0, 3), (0.32, 72), (0.42, 72), (0.72, 3)), "nod": ((0, 0), (0.1, 18), (0.5, 10), (0.8, 0)),
        "hip": ((0, 2), (0.32, 70), (0.42, 70), (0.7, 2)),
        "knee": ((0, 4), (0.32, 106), (0.42, 106), (0.7, 4)),
        "r_raise": ((0, 4), (0.32, 78), (0.42, 72), (0.7, 26), (0.84, 26)),
        "r_elbow": ((0, 14), (0.3, 8), (0.42, 12), (0.7, 85), (0.84, 85)),
        "l_raise": ((0, 4), (0.32, 48), (0.42, 48), (0.72, 4)), "l_elbow": ((0, 14), (0.32, 30), (0.72, 14)),
        "bend": ((0, 0), (0.32, 10), (0.42, 10), (0.7, 0)), "twist": ((0, 0), (0.37, -14), (0.7, 0)),
    }),
    "lift_box": Motion("squats, lifts a box with both hands to above the shoulders, puts it back", 4.4, {
        "lean": ((0, 48), (0.08, 48), (0.35, 4), (0.6, -3), (0.75, 4), (0.95, 48)),
        "hip": ((0, 84), (0.08, 84), (0.32, 2), (0.72, 2), (0.95, 84)),
        "knee": ((0, 114), (0.08, 114), (0.32, 4), (0.72, 4), (0.95, 114)),
        "raise": ((0, 58), (0.08, 58), (0.32, 16), (0.5, 105), (0.6, 105), (0.76, 16), (0.95, 58)),
        "elbow": ((0, 14), (0.08, 14), (0.32, 84), (0.5, 62), (0.6, 62), (0.76, 84), (0.95, 14)),
        "out": ((0, 2),), "rotate": ((0, -4),), "splay": ((0, 10), (0.08, 10), (0.32, 6), (0.72, 6)),
    }),
    "sit_down": Motion("sits down on a chair and stands up again", 4.2, {
        "hip": ((0, 2), (0.05, 2), (0.3, 86), (0.56, 86), (0.82, 2)),
        "knee": ((0, 4), (0.05, 4), (0.3, 88), (0.56, 94), (0.82, 4)),
        "lean": ((0, 2), (0.18, 36), (0.34, -4), (0.5, -4), (0.65, 38), (0.84, 2)),
        "raise": ((0, 4), (0.3, 28), (0.5, 28), (0.65, 40), (0.84, 4)),
        "elbow": ((0, 14), (0.3, 48), (0.56, 48)),
    }),
    "squat": Motion("does deep knee bends, arms forward", 2.2, {
        "hip": ((0, 2), (0.45, 92), (0.52, 92)), "knee": ((0, 4), (0.45, 120), (0.52, 120)),
        "lean": ((0, 2), (0.45, 36), (0.52, 36)), "raise": ((0, 12), (0.45, 118), (0.52, 118)),
        "elbow": ((0, 12), (0.45, 4)), "splay": ((0, 7),), "nod": ((0, 0), (0.48, -20)),
    }),
    "jog": Motion("jogs in place", 0.72, {
        "hip": ((0, 6), (0.2, -6), (0.5, 30), (0.68, 46), (0.9, 14)),
        "knee": ((0, 20), (0.2, 18), (0.45, 92), (0.68, 72), (0.92, 18)),
        "raise": ((0, -6), (0.2, -32), (0.68, 24)), "elbow": ((0, 86), (0.5, 98)), "out": ((0, 12),),
        "lean": ((0, 5),), "twist": ((0, -7), (0.5, 7)), "splay": ((0, 1),),
    }, alternate=True, stride=0.0, hop=0.05),
    # The tilt goes with the square of time, as a topple does, and ends at the floor.
    "fall": Motion("stands, collapses backwards or sideways, and stays lying", 1.0, {
        "tilt": ((0.85, 0), (1.06, 6), (1.28, 23), (1.49, 51), (1.62, 73), (1.73, 88), (1.8, 86), (1.9, 87)),
        "hip": ((0.75, 2), (1.15, 20), (1.4, 44), (1.73, 16)), "knee": ((0.75, 4), (1.42, 86), (1.75, 40)),
        "l_hip": ((0.75, 2), (1.15, 26), (1.4, 52), (1.73, 24)), "elbow": ((0.8, 14), (1.25, 50), (1.8, 30)),
        "lean": ((0.65, 2), (0.85, -4), (1.4, 22), (1.75, 2)), "nod": ((0.85, 0), (1.35, 24), (1.7, 0)),
        "raise": ((0.8, 4), (1.2, 44), (1.45, 55), (1.75, 16)), "out": ((0.8, 8), (1.25, 46), (1.7, 8)),
    }, once=True),
})  # fmt: skip


def make_motion(name: str, *, seconds: float, fps: float = 30.0, seed: int = 0) -> Clip:
    """Make a clip of the motion `name`: joints (round(seconds·fps) + 1, 15, 3) metres, y up, the floor at y = 0.

    The seed determines the person (height ±6 %, segments ±2 %, the same in every motion) and the performance:
    tempo ±12 %, size ±10 %, phase, heading, a fall's direction, wander and sensor noise. A fall ends by 2 s.
    Raises ClipError for an unknown name, or for a length, rate or seed that no clip can have.
    """
    if name not in MOTIONS:
        raise ClipError(f"there is no motion called {name!r:.60}", fix=f"use one of: {', '.join(MOTIONS)}")
    if not (1 <= fps <= 1000 and 1 <= seconds * fps < MAX_FRAMES - 1 and seed >= 0):
        raise ClipError(
            f"cannot make {seconds:g} s at {fps:g} fps with seed {seed}",
            why=f"a clip has 2 to {MAX_FRAMES} frames at 1 to 1000 fps, and seeds count from 0",
        )
    motion = MOTIONS[name]
    time = np.arange(round(seconds * fps) + 1) / fps
    rest, flesh = _body(np.random.default_rng(seed))
    rng = np.random.default_rng([seed, *name.encode()])
    joints = _perform(motion, time, rest, flesh, rng)
    joints += NOISE_M / 3**0.5 * _wander(time, (J, 3), 0.3, 4.0, rng)
    seen = np.ones((len(time), J), np.float32)
    return Clip(joints.astype(np.float32), seen, float(fps), f"made{seed}", SOURCE)


def _body(rng: np.random.Generator) -> tuple[Array, Array]:
    """Make a person: each joint's offset (15, 3) from its parent and distance (15,) from the floor, in metres."""
    height = HEIGHT_M * (1 + 0.06 * rng.uniform(-1, 1))
    segment = {part: height * (1 + 0.02 * rng.uniform(-1, 1)) for part in _REST}
    parts = [joint.removeprefix("l_").removeprefix("r_") for joint in CORE15]
    rest = np.array([np.multiply(_REST[part], segment[part]) for part in parts])
    rest[[joint.startswith("l_") for joint in CORE15], 0] *= -1
    return rest, np.array([_FLESH[part] * height for part in parts])


def _perform(motion: Motion, time: Array, rest: Array, flesh: Array, rng: np.random.Generator) -> Array:
    """Joint positions (T, 15, 3) in metres, before the sensor's noise."""
    tempo, size = 1 + np.array([0.12, 0.10]) * rng.uniform(-1, 1, 2)
    start = rng.uniform(0, min(1.0, 1.0 / motion.period))
    heading, turn = rng.uniform(-np.pi, np.pi), rng.choice([-1.0, 1.0])
    aim = rng.choice([-90.0, 0.0, 90.0]) * rng.uniform(0.8, 1)
    unsteady = _wander(time, (2,), 0.05, 0.3, rng)
    cycles = time * tempo / motion.period
    if not motion.once:
        cycles = cycles + start + 0.012 * unsteady[:, 0]
    sizes = size * (1 + 0.03 * unsteady[:, 1])

    leg = -float(rest[CORE15.index("l_knee"), 1] + rest[CORE15.index("l_ankle"), 1])
    curvature = turn / RADIUS_M
    yaw = heading + curvature * size * (motion.stride or 0) * leg * cycles
    angles = _angles(motion, cycles, sizes, time, rng)
    angles |= {"yaw": yaw, "aim": np.full_like(time, np.radians(aim))}
    joints = _forward(angles, rest)

    if motion.stride is None:
        root = -joints[:, [CORE15.index("l_ankle"), CORE15.index("r_ankle")]].mean(1)
    else:  # the circle's centre is the origin; in place, the heading stays and so does the root
        root = np.stack([np.cos(yaw), 0 * yaw, -np.sin(yaw)], -1) * (bool(motion.stride) / curvature)
    hop = motion.hop * sizes * (0.5 - 0.5 * np.cos(4 * np.pi * (cycles - 0.04)))
    root[:, 1] = hop - _lowest(joints, flesh)
    joints += root[:, None]
    return joints


def _angles(motion: Motion, cycles: Array, sizes: Array, time: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Every joint angle over time, in radians: scaled keyframes plus a slow drift of about a degree."""
    angles = {}
    for part, turns in _TURNS.items():
        for side in ("",) if part in ("pelvis", "neck", "head") else ("l_", "r_"):
            for angle, _, _ in turns:
                keys = motion.keys.get(side + angle, motion.keys.get(angle, _RELAXED.get(angle, ((0, 0),))))
                late = 0.5 if motion.alternate and side == "r_" else 0.0
                degrees = _curve(keys, cycles - late, cyclic=not motion.once)
                drift = (0.6 if angle in _STEADY else 1.6) * _wander(time, (), 0.05, 0.5, rng)
                degrees = degrees * sizes + drift if angle != "tilt" else degrees
                angles[side + angle] = np.radians(degrees)
    return angles


def _curve(keys: Keys, phase: Array, *, cyclic: bool) -> Array:
    """A smooth curve (T,) through the keys that never overshoots them; flat beyond the ends if not cyclic.

    Cubic Hermite with harmonic-mean slopes: Fritsch & Butland (1984), SIAM J. Sci. Stat. Comput. 5(2).
    """
    x, y = np.array(keys, float).T
    if cyclic:
        x, y, phase = np.concatenate([x - 1, x, x + 1]), np.tile(y, 3), phase % 1
    if len(x) == 1:
        return np.full_like(phase, y[0])
    step = np.diff(x)
    slope = np.diff(y) / step
    before, after = slope[:-1], slope[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.where(before * after > 0, 2 * before * after / (before + after), 0)
    tangent = np.concatenate([[0], inner, [0]])
    i = np.clip(np.searchsorted(x, phase, "right") - 1, 0, len(step) - 1)
    u, h = np.clip((phase - x[i]) / step[i], 0, 1), step[i]
    ease = u * u * (3 - 2 * u)
    bow = u * (1 - u) * h * ((1 - u) * tangent[i] - u * tangent[i + 1])
    return np.asarray(y[i] + (y[i + 1] - y[i]) * ease + bow)


def _forward(angles: Mapping[str, Array], rest: Array) -> Array:
    """Forward kinematics: `angles` (T,) in radians and offsets (15, 3) → joints (T, 15, 3), the pelvis at 0."""
    frames = len(angles["yaw"])
    turned: list[Array] = []
    joints = np.zeros((frames, J, 3))
    for j, (name, parent) in enumerate(zip(CORE15, PARENTS, strict=True)):
        side = name[:2] if name[1] == "_" else ""
        turn = turned[parent] if parent >= 0 else np.broadcast_to(np.eye(3), (frames, 3, 3))
        for angle, axis, sign in _TURNS.get(name.removeprefix(side), ()):
            turn = turn @ _rotation(axis, angles[side + angle] * (-sign if side == "l_" and axis else sign))
        turned.append(turn)
        if parent >= 0:
            joints[:, j] = joints[:, parent] + turn @ rest[j]
    return joints


def _rotation(axis: int, angle: Array) -> Array:
    """Rotation matrices (T, 3, 3) about the x, y or z axis, right-handed, for angles (T,) in radians."""
    one, two = (axis + 1) % 3, (axis + 2) % 3
    out = np.zeros((len(angle), 3, 3))
    out[:, axis, axis] = 1
    out[:, one, one] = out[:, two, two] = np.cos(angle)
    out[:, two, one] = np.sin(angle)
    out[:, one, two] = -out[:, two, one]
    return out


def _lowest(joints: Array, flesh: Array) -> Array:
    """The height (T,) of the lowest point of joints (T, 15, 3): a soft minimum, exact where two joints share it."""
    bottom = joints[..., 1] - flesh
    least = bottom.min(1, keepdims=True)
    return np.asarray(least[:, 0] - SOFTNESS_M * np.log(0.5 * np.exp((least - bottom) / SOFTNESS_M).sum(1)))


def _wander(time: Array, shape: tuple[int, ...], low: float, high: float, rng: np.random.Generator) -> Array:
    """Band-limited noise (T, *shape) with root mean square 1: sums of eight sinusoids from `low` to `high` hertz."""
    waves = 8
    out = np.zeros((len(time), *shape))
    column = time.reshape(-1, *(1 for _ in shape))
    for _ in range(waves):
        out += np.sin(2 * np.pi * (rng.uniform(low, high, shape) * column + rng.random(shape)))
    out *= (2 / waves) ** 0.5
    return out
