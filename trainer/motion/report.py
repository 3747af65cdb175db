"""Reports how good a motion model is on people it never saw: figures beside those of real clips, and pictures.

Every column of the table is made from the same held-out clips: the real ones, the real ones smoothed by the model's
cosine transform (the best it could reach), and the clips that each recipe generates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from edge.bundle import replace_file
from edge.clip import Clip
from edge.errors import ClipError
from trainer.datasets import ClipSet, find_sets, load_set
from trainer.motion import quality as q
from trainer.motion.diffusion import NOISE_STEPS, absolute, cosine_schedule
from trainer.motion.fit import stretch
from trainer.motion.generate import COMPLETE, Recipe, as_clip, bodies, draw, generate, kept_frames
from trainer.motion.model import MotionModel
from trainer.motion.stick import Strip, draw_strips

WAYS = {
    "completed": COMPLETE,
    "varied 0.15": Recipe(strength=0.15),
    "varied 0.3": Recipe(strength=0.3),
    "varied 0.5": Recipe(strength=0.5),
}
FREE = {
    "completed, bones free": replace(COMPLETE, bones=False),
    "varied 0.3, bones free": Recipe(strength=0.3, bones=False),
}
"""What the model generates by itself, without giving bones the source's lengths."""
COPIES = 4
"""Clips generated from one source, to measure diversity."""
MEASURES = {
    "bone_drift_percent": "bone drift %",
    "foot_sliding_m_s": "foot sliding m/s",
    "jerk_m_s3": "jerk m/s³",
    "diversity_m": "diversity m",
    "from_source_m": "from source m",
    "nearest_training_m": "nearest training m",
    "nearer_than_real": "nearer than real",
    "category_kept": "category kept",
}


@dataclass(frozen=True, slots=True)
class Material:
    """Clips to measure on, cut to the model's span: those to generate from, and those the model was trained on.

    `group` numbers the pairs of (set, category), `origin` the sets: nearest clips are looked for only within a set,
    since those of another sensor are always farther.
    """

    source: list[Clip]
    source_name: list[str]
    source_group: NDArray[np.int64]
    source_origin: NDArray[np.int64]
    training: list[Clip]
    training_group: NDArray[np.int64]
    training_origin: NDArray[np.int64]


def gather(model: MotionModel, data: Path, most: int) -> Material:
    """Load the held-out clips, at most `most`, evenly spread, and the training clips, by the model's record.

    A set that the record does not name is left out. Raises ClipError if either kind is missing.
    """
    training = model.manifest.training
    held = {s["name"]: s["held_out_subjects"] for s in training.get("sets", [])}
    exclude = training.get("config", {}).get("exclude", [])
    sets = [load_set(p, exclude=exclude) for p in find_sets(data) if p.name in held]
    sides: tuple[list[tuple[ClipSet, int, int]], ...] = ([], [])
    for o, s in enumerate(sets):
        for i, clip in enumerate(s.clips):
            sides[clip.subject in held[s.name]].append((s, i, o))
    if not all(sides):
        raise ClipError(
            f"{data}: not the data of {model.name}",
            why="the report needs the model's training clips, and clips of the people held out of its training",
            fix="name the folder it was trained on; a model trained with hold_out 0 cannot be measured",
        )
    known, unknown = sides
    unknown = [unknown[i] for i in np.linspace(0, len(unknown) - 1, min(len(unknown), most)).astype(int)]
    first = np.cumsum([0] + [len(s.names) for s in sets])

    def side(of: list[tuple[ClipSet, int, int]]) -> tuple[list[Clip], NDArray[np.int64], NDArray[np.int64]]:
        return (
            [stretch(s.clips[i], model.manifest.span, 0.5) for s, i, _ in of],
            np.array([first[o] + s.label[i] for s, i, o in of]),
            np.array([o for _, _, o in of]),
        )

    names = [f"{s.name} {s.names[s.label[i]]}" for s, i, _ in unknown]
    source, group, origin = side(unknown)
    return Material(source, names, group, origin, *side(known))


def rows(model: MotionModel, clips: Sequence[Clip]) -> q.Rows:
    """Clips as rows for the measures: (N, F·45)."""
    parts = [absolute(bodies(model.net, clips[i : i + 256])[0]).flatten(1) for i in range(0, len(clips), 256)]
    return torch.cat(parts).numpy()


def measure(model: MotionModel, m: Material, seed: int) -> dict[str, dict[str, float]]:
    """Compute the figures of MEASURES for each column of the table."""
    training, real = rows(model, m.training), rows(model, m.source)
    per_set = [(m.source_origin == o, np.flatnonzero(m.training_origin == o)) for o in np.unique(m.source_origin)]

    def near(x: q.Rows) -> tuple[q.Rows, NDArray[np.int64]]:
        distance, group = np.full(len(x), np.nan, np.float32), np.full(len(x), -1)
        for mine, theirs in per_set:
            if len(theirs):
                distance[mine], which = q.nearest(x[mine], training[theirs])
                group[mine] = m.training_group[theirs[which]]
        return distance, group

    real_distance, _ = near(real)

    def figures(clips: list[Clip], x: q.Rows, diversity: float) -> dict[str, float]:
        distance, group = near(x)
        apart = np.sqrt(((x - real) ** 2).sum(1) / (x.shape[1] / 3))
        values = (
            float(np.nanmean([q.bone_drift(c) for c in clips])),
            float(np.nanmean([q.foot_sliding(c) for c in clips])),
            float(np.nanmean([q.jerk(c) for c in clips])),
            diversity,
            float(apart.mean()),
            float(np.nanmean(distance)),
            q.copied(distance, real_distance),
            float((group == m.source_group).mean()),
        )
        return dict(zip(MEASURES, values, strict=True))

    smooth = smoothed(model, m.source)
    found = {
        "real": figures(m.source, real, q.group_diversity(real, m.source_group)),
        "real, smoothed": figures(smooth, s := rows(model, smooth), q.group_diversity(s, m.source_group)),
    }
    for name, recipe in (WAYS | FREE).items():
        made = generate(model, m.source, COPIES, seed=seed, recipe=recipe)
        x = rows(model, made)
        within = q.group_diversity(x, np.repeat(np.arange(len(m.source)), COPIES))
        found[name] = figures(made[::COPIES], x[::COPIES], within)
    return found


def smoothed(model: MotionModel, clips: Sequence[Clip]) -> list[Clip]:
    """Take real clips through the model's cosine transform and back, without any noise."""
    body, place = bodies(model.net, clips)
    space = model.net.space
    joints = place.back(absolute(space.decode(space.encode(body)))).numpy()
    return [as_clip(j, c, 0, c.source) for j, c in zip(joints, clips, strict=True)]


def pictures(model: MotionModel, m: Material, seed: int, most: int = 8) -> dict[str, str]:
    """Draw, for a few categories, a real clip, the same noised, and clips generated from it: file name → SVG."""
    # Take one category of each set in turn, so that every sensor is shown.
    order = sorted(
        {g: i for i, g in reversed(list(enumerate(m.source_group)))}.values(),
        key=lambda i: ((m.source_origin[:i] == m.source_origin[i]).sum(), i),
    )
    drawn = {}
    for i in order[:most]:
        source = [m.source[i]]
        strips = [Strip("real", _picture_body(model, source)), _noised(model, source[0], 0.5, seed)]
        for name, recipe in WAYS.items():
            kept = kept_frames(model.net, recipe.keep)
            for n, clip in enumerate(generate(model, source, 2 if kept else 1, seed=seed, recipe=recipe)):
                label = f"{name}, {'another' if n else 'grey: kept'}" if kept else name
                strips.append(Strip(label, _picture_body(model, [clip]), kept))
        file = re.sub(r"[^\w.-]+", "_", m.source_name[i]) + ".svg"
        drawn[file] = draw_strips(f"{m.source_name[i]}, a person held out", strips)
    return drawn


def _picture_body(model: MotionModel, clips: list[Clip]) -> q.Rows:
    found: q.Rows = absolute(bodies(model.net, clips)[0])[0].numpy()
    return found


def _noised(model: MotionModel, clip: Clip, strength: float, seed: int) -> Strip:
    """What the sampler starts from when it varies the clip."""
    body, _ = bodies(model.net, [clip])
    a = float(cosine_schedule()[round(strength * NOISE_STEPS)])
    noise = draw(model.net, [torch.Generator().manual_seed(seed)])
    z = math.sqrt(a) * model.net.space.encode(body) + math.sqrt(1 - a) * noise
    return Strip(f"noised {strength:g}", absolute(model.net.space.decode(z))[0].numpy())


def write_report(model: MotionModel, data: Path, out: Path, *, most: int, seed: int) -> Table:
    """Write `quality.json` and the pictures to `out`; returns the table of the figures.

    Raises ClipError if `data` is not what the model was trained on.
    """
    material = gather(model, data, most)
    found = measure(model, material, seed)
    record = {
        "model": model.name,
        "data": str(data),
        "clips": len(material.source),
        "training_clips": len(material.training),
        "seed": seed,
        "figures": {n: {k: None if math.isnan(v) else round(v, 4) for k, v in f.items()} for n, f in found.items()},
    }
    replace_file(out / "quality.json", (json.dumps(record, indent=2) + "\n").encode())
    for name, picture in pictures(model, material, seed).items():
        replace_file(out / name, picture.encode())
    return quality_table(found, f"{model.name} on {len(material.source)} clips of people held out")


def quality_table(found: dict[str, dict[str, float]], title: str) -> Table:
    """The figures for a terminal: a column for each kind of clip."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right", overflow="fold")
    for measure, label in MEASURES.items():
        table.add_row(label, *(_shown(measure, figures[measure]) for figures in found.values()))
    return table


def _shown(measure: str, value: float) -> str:
    if measure in ("nearer_than_real", "category_kept"):
        return f"{value:.0%}"
    return f"{value:.1f}" if value >= 10 or measure == "bone_drift_percent" else f"{value:.3f}"
