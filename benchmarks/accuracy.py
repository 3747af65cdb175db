"""Seen and unseen categories, side by side: `python -m benchmarks.accuracy --data DIR` (a set like UTD-MHAD).

Four folds; each leaves out every fourth category. A method trains on the training subjects' clips of the others, then
every category of the set is in turn the normal one: K = 3 support clips of training subjects, all clips of the test
subjects judged, one AUROC. The table has the mean over the categories that were trained on (seen) and over those that
were not (unseen), over all folds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.stream import cpu
from edge.score import match
from edge.skeleton import Float
from trainer.baselines import raw_dct
from trainer.config import TrainConfig
from trainer.datasets import ClipSet, load_set, subject_split
from trainer.evaluate import Distance, few_shot
from trainer.fit import Trainer, embed_clips
from trainer.paper import PaperConfig, embed_paper, mean_euclidean, prepare, train_paper

FOLDS = 4


@dataclass(frozen=True, slots=True)
class Method:
    """What is compared: `fit` takes the training clips and all clips to embeddings of all (N, D)."""

    name: str
    fit: Callable[[ClipSet, ClipSet], Float]
    distance: Distance


def floor(train: ClipSet, everything: ClipSet) -> Float:
    """No learning."""
    return raw_dct(everything.clips)


def paper(train: ClipSet, everything: ClipSet) -> Float:
    """The published recipe, without generated clips."""
    encoder = train_paper(prepare(train.clips), train.label, PaperConfig())
    return embed_paper(encoder, prepare(everything.clips))


def ours(steps: int, train: ClipSet, everything: ClipSet) -> Float:
    """This project's encoder, on this set alone."""
    trainer = Trainer([train], TrainConfig(steps=steps, hold_out=0, validate_every=steps + 1))
    trainer.run(lambda step, loss, news: None)
    return embed_clips(trainer.average, everything.clips)


def main() -> None:
    """Train, measure, print; write the figures when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--methods", default="floor,paper,ours")
    parser.add_argument("--folds", type=int, default=FOLDS, help="only the first so many")
    parser.add_argument("--steps", type=int, default=2000, help="of our encoder")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = load_set(options.data)
    training = subject_split(data.subjects)
    names = np.array(data.names)[data.label]
    methods = {
        "floor": Method("no learning: raw DCT", floor, partial(match, temperature=0.05)),
        "paper": Method("recipe paper", paper, mean_euclidean),
        "ours": Method(
            f"our encoder, {options.steps} steps", partial(ours, options.steps), partial(match, temperature=0.05)
        ),
    }
    print(f"{options.data}, {options.folds} of {FOLDS} folds, 3 shots, {options.draws} draws; {cpu()}; {date.today()}")
    rows = []
    for key in options.methods.split(","):
        method, began = methods[key], time.monotonic()
        seen: list[float] = []
        unseen: list[float] = []
        for fold in range(options.folds):
            left_out = data.label % FOLDS == fold
            embedding = method.fit(data.subset(training & ~left_out), data)
            found = few_shot(embedding, names, data.subjects, draws=options.draws, distance=method.distance)
            for g, name in enumerate(data.names):
                (unseen if g % FOLDS == fold else seen).append(found.categories[name])
        minutes = (time.monotonic() - began) / 60
        rows.append({"method": method.name, "seen": np.mean(seen), "unseen": np.mean(unseen), "minutes": minutes})
        print(
            f"{method.name:32} seen {np.mean(seen):.4f}   unseen {np.mean(unseen):.4f}   {minutes:.1f} min", flush=True
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"data": str(options.data), "machine": cpu(), "date": str(date.today()), "rows": rows}
        options.json.write_text(json.dumps(report, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
