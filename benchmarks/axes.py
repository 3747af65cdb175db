"""Measures what wrong axes cost, and whether they are noticed: `python -m benchmarks.axes --data DIR`.

The clips of DIR are taken as they are, and with axes reversed or exchanged, in support and test alike, as a tracker
with other axes would give them. AUROC is that of `haad-edge evaluate`. "told" is the share of 400 supports (each with
three clips of four categories, drawn at random) for which the engine says that an axis is wrong.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from edge.bench.machine import cpu
from edge.bundle import open_bundle
from edge.clip import Clip
from edge.commands.embedding import embed_whole
from edge.engine import embed, open_engine
from edge.ingest.posture import clip_cues, turned, wrong
from edge.skeleton import Float
from trainer.datasets import ClipSet, load_set
from trainer.evaluate import few_shot, mean_cosine

AXES = {
    "as they are": ((1, 1, 1), (0, 1, 2)),
    "one axis turned over": ((1, 1, -1), (0, 1, 2)),
    "y down": ((1, -1, -1), (0, 1, 2)),
    "y down, one axis turned over": ((1, -1, 1), (0, 1, 2)),
    "z up": ((1, -1, 1), (0, 2, 1)),
}
SUPPORTS, CATEGORIES, SHOTS = 400, 4, 3


def share_noticed(data: ClipSet, clips: list[Clip], rng: np.random.Generator) -> float:
    """The share of supports, drawn from the clips, whose axes the engine says are wrong."""
    cues: Float = np.concatenate([clip_cues(c) for c in clips])
    of = [np.flatnonzero(data.label == g) for g in range(len(data.names))]
    of = [rows for rows in of if len(rows) >= SHOTS]
    found = 0
    for _ in range(SUPPORTS):
        names = rng.choice(len(of), min(CATEGORIES, len(of)), replace=False)
        rows = np.concatenate([rng.choice(of[g], SHOTS, replace=False) for g in names])
        found += bool(wrong(cues[rows].sum(0)))
    return found / SUPPORTS


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    bundle, data = open_bundle(), load_set(o.data)
    encode = partial(embed, open_engine(bundle, max_batch=256, threads=2))
    category = np.array(data.names)[data.label]
    rows = {}
    print(f"{data.name}, {bundle.model}: AUROC, error over that of the first, told")
    for name, (signs, order) in AXES.items():
        clips = [turned(c, order, signs) for c in data.clips]
        embedding = embed_whole(encode, clips, bundle.manifest.frames)
        found = few_shot(embedding, category, data.subjects, draws=o.draws, distance=mean_cosine)
        share = share_noticed(data, clips, np.random.default_rng(0))
        rows[name] = {"auroc": found.mean, "told": share}
        error = 1 - rows["as they are"]["auroc"]
        times = (1 - found.mean) / error if error else float("nan")
        print(f"{name:30} {found.mean:.4f}  x{times:<5.1f} {share:.3f}", flush=True)
    if o.json:
        figures = {"data": data.name, "model": bundle.model, "machine": cpu(), "date": str(date.today()), "rows": rows}
        o.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
