"""Makes the clips that `haad-edge demo` plays: `make demo-motion MOTION=DIR`, or with torch installed

    python -m trainer.motion.demo --motion DIR [--out FOLDER]

    edge.motion's formulas ──► stretches of the model's span ──► noised, denoised ──► cross-faded ──► edge/demo_clips
     walk, wave, …, fall        each overlapping the next     by generate.py            into one       support/, played/

A formula moves like clockwork. Slightly noised, then denoised by a model of recorded movements, it varies as they do,
and still is nobody's recording: the clips are as far from the model's training clips as the formulas are. The files
ship inside `edge`, so that the demo needs neither torch nor the model. The same model makes the same clips.

Each clip played is a loop: its end runs into its beginning, with the same heading, place and phase, so that a demo of
any length has no seam that would raise an alert. Only the fall is no loop. The model has seen people sit down and
squat, never fall, so the fall gets less noise: arms and legs differ from the formula, and it is still a fall.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edge.clip import BRIDGE_S, Clip, save_clip
from edge.commands.console import fail, say
from edge.commands.demo import CLIPS, NORMAL, SCRIPT, SHOTS
from edge.errors import ClipError, HaadError
from edge.motion import make_motion
from edge.skeleton import CORE15, Float, J
from trainer.motion.diffusion import absolute, with_bones_of
from trainer.motion.generate import Recipe, generate
from trainer.motion.model import MotionModel, open_motion

FPS = 20.0
"""Frames per second of the files. The model's motion ends at 2.5 Hz; a looped clip's bridge is three frames."""
SHOT_S = 6.0
"""Longer than the longest repeating motion, lifting a box: the support must hold all its phases."""
FIRST_SEED = 109
"""The first seed of the people in the support clips; the cameras see other people."""
STRENGTH = 0.15
"""At 0.3 some walkers carry their arms bent, and at 0.4 some wavers no longer wave."""
FALL_STRENGTH = 0.1
HOP = 0.7
"""The most from one stretch's start to the next's, as a share of the model's span: the rest is the cross-fade."""
CLOSED_S = 1.0
"""Where a loop is closed, the source must look like its beginning for this long."""
APART_M = 0.06
"""The root mean square distance up to which it counts as alike."""
GRID_M = 1 / 1024
"""Joints are rounded to this, a sixth of a sensor's jitter: it halves the size of the files."""


@dataclass(frozen=True, slots=True)
class Act:
    """What a camera plays: the seed of the formula's person and performance, and how to vary it.

    `loop`: the least and the greatest length of the loop in seconds; None: played once, for as long as the script says.
    """

    seed: int
    loop: tuple[float, float] | None
    strength: float = STRENGTH


# Seeds whose motion returns to its beginning: the walk after one lap, on the same foot. The same person lifts boxes,
# falls and stands.
ACTS: dict[str, Act] = {
    "walk": Act(8, (6, 10)),
    "wave": Act(4, (4, 8)),
    "lift_box": Act(20, (4, 9)),
    "stand": Act(20, (5, 9)),
    "fall": Act(20, None, FALL_STRENGTH),
}


def shots(model: MotionModel) -> dict[str, list[Clip]]:
    """Make the support clips: category → its clips, each of a different person."""
    return {
        name: [
            vary(model, make_motion(name, seconds=SHOT_S, fps=FPS, seed=FIRST_SEED + k), STRENGTH) for k in range(SHOTS)
        ]
        for name in NORMAL
    }


def played(model: MotionModel) -> dict[str, Clip]:
    """Make the clips that the cameras play: motion → its clip."""
    lasts = {name: seconds for acts in SCRIPT.values() for name, seconds in acts}
    made = {}
    for name, act in ACTS.items():
        long = act.loop[1] + max(CLOSED_S, model.manifest.span) if act.loop else lasts[name]
        source = turn_forward(make_motion(name, seconds=long, fps=FPS, seed=act.seed))
        made[name] = vary(model, source, act.strength, loop_length(source, act.loop) if act.loop else None)
    return made


def turn_forward(clip: Clip) -> Clip:
    """Turn the clip as a whole so that it begins facing −z, and nobody spins round between two acts."""
    across = clip.joints[0, CORE15.index("r_hip")] - clip.joints[0, CORE15.index("l_hip")]
    c, s = across[[0, 2]] / np.hypot(across[0], across[2])
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)
    return replace(clip, joints=clip.joints @ turn)


def loop_length(source: Clip, between: tuple[float, float]) -> int:
    """After how many frames, within `between` seconds, the source is as it began. Raises ClipError if it never is."""
    low, high = (round(s * source.fps) for s in between)
    n = round(CLOSED_S * source.fps)
    x = source.joints.astype(np.float64)
    apart = [np.sqrt(((x[p : p + n] - x[:n]) ** 2).sum(-1).mean()) for p in range(low, high + 1)]
    best = int(np.argmin(apart))
    if apart[best] > APART_M:
        raise ClipError(
            f"{source.subject} never comes within {APART_M:g} m of its beginning again",
            why=f"the nearest it comes is {apart[best]:.2f} m, after {(low + best) / source.fps:g} s",
            fix="give the motion another seed in trainer/motion/demo.py",
        )
    return low + best


def vary(model: MotionModel, source: Clip, strength: float, loop: int | None = None) -> Clip:
    """Vary the whole source; or make a loop of its first `loop` frames, after which it must go on for a span.

    Stretches are varied one by one and cross-faded where they overlap; then the bones get their lengths back.
    """
    n = min(round(model.manifest.span * source.fps) + 1, len(source.joints))
    total = loop or len(source.joints)
    if loop:
        count = int(np.ceil(total / (HOP * n)))
        starts = (np.arange(count) * total / count).round().astype(int)
    else:
        count = int(np.ceil((total - n) / (HOP * n))) + 1
        starts = np.linspace(0, total - n, count).round().astype(int)
    stretches = [
        replace(source, joints=source.joints[s : s + n], visible=source.visible[s : s + n]) for s in starts.tolist()
    ]
    made = generate(model, stretches, recipe=Recipe(strength=strength))
    fade = np.hanning(n + 2)[1:-1, None, None]  # nowhere 0: the first and the last frame have no other stretch
    joints, weight = np.zeros((total, J, 3)), np.zeros((total, 1, 1))
    for start, clip in zip(starts, made, strict=True):
        at = (start + np.arange(n)) % total
        np.add.at(joints, at, fade * clip.joints)
        np.add.at(weight, at, fade)
    out = _with_bones((joints / weight).astype(np.float32), source.joints[:total])
    if loop:
        out = out[: 1 - round(BRIDGE_S * source.fps)]  # a looped clip bridges what is left out here
    out = (np.round(out / GRID_M) * GRID_M).astype(np.float32)
    seen = np.ones(out.shape[:2], np.float32)
    return Clip(out, seen, source.fps, source.subject, f"{made[0].source}, from {source.source}")


def _with_bones(joints: Float, like: Float) -> Float:
    """Give joints (T, 15, 3) the bone lengths of `like`: a cross-fade of two arms is shorter than either."""
    new, old = (torch.from_numpy(np.concatenate([x[:, :1], x[:, 1:] - x[:, :1]], 1))[None] for x in (joints, like))
    out: Float = absolute(with_bones_of(new.flatten(2), old.flatten(2)))[0].numpy()
    return out


def write(model: MotionModel, out: Path) -> list[Path]:
    """Make all clips, then write them: support/<category>/<k>.npz and played/<motion>.npz. Returns the files."""
    files = {out / "support" / name / f"{k}.npz": c for name, cs in shots(model).items() for k, c in enumerate(cs)}
    files |= {out / "played" / f"{name}.npz": clip for name, clip in played(model).items()}
    for path, clip in files.items():
        save_clip(path, clip)
    return list(files)


def main(given: list[str] | None = None) -> None:
    """Make the files, and print how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", type=Path, required=True, help="the motion model: what train-motion wrote")
    parser.add_argument("--out", type=Path, default=CLIPS, help="folder to write to; default: the demo's own")
    o = parser.parse_args(given)
    try:
        files = write(open_motion(o.motion), o.out)
    except HaadError as e:
        fail(e)
    say(f"{o.out}: {len(files)} clips, {sum(f.stat().st_size for f in files) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
