"""Measures faulty repetitions of an exercise: `python -m benchmarks.repetitions --data DIR/ui_prmd [--bundle B]`.

Five correct repetitions of a person are the support; the same person's other correct ones and the incorrect ones are
judged. The figures are the AUROC of whole repetitions, as `evaluate` embeds them; that of the mean score of a
repetition's windows, as the device sees them; and the shares of correct and of incorrect repetitions above the default
limit, and above the level of the support itself. The limit is that level times a margin for people who differ from
those in the clips; here nobody does.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.machine import cpu
from edge.bundle import Bundle, open_bundle
from edge.commands.embedding import embed_whole
from edge.engine import embed, open_engine
from edge.score import level_of, margin_of, match
from edge.support.enrol import clip_windows
from trainer.datasets import ClipSet, load_set
from trainer.evaluate import auroc, mean_cosine

SHOTS, RIGHT, WRONG = 5, "_correct", "_incorrect"
FIGURES = (
    "auroc_whole",
    "auroc_windows",
    "correct_above_limit",
    "incorrect_above_limit",
    "correct_above_level",
    "incorrect_above_level",
)


def measure(data: ClipSet, bundle: Bundle, draws: int, seed: int = 0) -> dict[str, Any]:
    """Measure FIGURES: means over exercises of the means over people and draws, and the least exercise."""
    m, calibration = bundle.manifest, bundle.calibration()
    engine = open_engine(bundle, max_batch=64)
    whole = embed_whole(partial(embed, engine), data.clips, m.frames)
    windows = [embed(engine, *clip_windows(clip, m.frames, m.seconds)) for clip in data.clips]
    names, rng = np.array(data.names)[data.label], np.random.default_rng(seed)
    found: dict[str, list[list[float]]] = {}
    for exercise in sorted({n.removesuffix(RIGHT) for n in names if n.endswith(RIGHT)}):
        for person in sorted(set(data.subjects)):
            mine = data.subjects == person
            right, wrong = (np.flatnonzero(mine & (names == exercise + x)) for x in (RIGHT, WRONG))
            if len(right) <= SHOTS or not len(wrong):
                continue
            for _ in range(draws):
                shots = rng.choice(right, SHOTS, replace=False)
                support, left = [windows[i] for i in shots], np.setdiff1d(right, shots)
                level, margin = level_of(support, calibration, m.temperature), margin_of(SHOTS, calibration)
                rows = np.concatenate(support)
                whole_of = [mean_cosine(whole[x], whole[shots]) for x in (left, wrong)]
                scores = [
                    np.array([match(windows[i], rows, m.temperature).mean() / level for i in x]) for x in (left, wrong)
                ]
                above = [float((s >= x).mean()) for x in (margin, 1.0) for s in scores]
                found.setdefault(exercise, []).append([auroc(*whole_of), auroc(*scores), *above])
    means = np.array([np.mean(v, 0) for v in found.values()])
    return {
        key: {"mean": round(float(c.mean()), 4), "least": round(float(c.min()), 4)}
        for key, c in zip(FIGURES, means.T, strict=True)
    }


def main() -> None:
    """Measure, print, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the set's folder")
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    bundle = open_bundle(o.bundle)
    figures = measure(load_set(o.data), bundle, o.draws)
    about = {"data": o.data.name, "model": bundle.model, "draws": o.draws, "machine": cpu(), "date": str(date.today())}
    text = json.dumps(about | figures, indent=1)
    print(text)
    if o.json:
        o.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
