"""Measures what `like` in alert messages tells: `python -m benchmarks.repeats --data DIR [--keypoints]`.

Each category of DIR in turn is the only normal one, described by SHOTS clips of other people, and the engine itself
watches five minutes of it, then anomalies of the other categories. Of the false alarms, how many that repeat an earlier
one of their stream say so? And how many alerts about an anomaly are taken for a repeated false alarm?
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.place import EPOCH, Place, Raised, messages
from benchmarks.views import View
from edge.bench.inside import Replay
from edge.bundle import open_bundle
from edge.clip import save_clip
from edge.engine import open_engine
from edge.grid import SECOND
from edge.runtime import Runtime
from edge.settings import load_settings
from trainer.datasets import load_set
from trainer.streaming.takes import StreamPlan, make_takes

PLAN = StreamPlan(clean=300.0, anomalies=40, short_share=0.0)
SHOTS = 3


def watch_person(person: str, o: argparse.Namespace) -> np.ndarray:
    """Count, over this person's streams: false alarms that repeat one, of these said so; anomalies', said like one."""
    torch.set_num_threads(1)
    bundle, settings, data = open_bundle(o.bundle), load_settings(), load_set(o.data)
    if o.keypoints:
        data = replace(data, clips=View()(data.clips, 0))
    engine, total = open_engine(bundle, max_batch=settings.max_batch), np.zeros(4, int)
    others = ~np.isin(data.subjects, o.people.split(","))
    for take in make_takes(data, data.subjects == person, PLAN):
        (name,) = take.normal
        g = data.names.index(name)
        pool = np.flatnonzero(others & (data.label == g))
        with TemporaryDirectory() as folder:
            place, sink = Place(Path(folder), bundle, engine, settings), Raised()
            for i in np.random.default_rng((0, g)).choice(pool, SHOTS, replace=False):
                save_clip(place.support / name / f"{i}.npz", data.clips[i])
            loop = Runtime(settings, bundle, engine, place.known(True), Replay(messages(take)), sink)
            while loop.step(0):
                pass
            loop.dispatch.flush()
        false = {a.id for a in sink.alerts if (a.end - EPOCH) / SECOND <= take.clean}
        again, told = max(0, len(false) - 1), sum(a.like in false for a in sink.alerts if a.id in false)
        true = [a for a in sink.alerts if a.id not in false]
        total += [again, told, len(true), sum(a.like in false for a in true)]
    return total


def main() -> None:
    """Measure, and print two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--people", default="4,8", help="who is watched; default: those of UTD-MHAD held out")
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument(
        "--keypoints", action="store_true", help="use 2-D keypoints, as from a camera in front of people"
    )
    o = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        again, told, true, taken = sum(pool.map(partial(watch_person, o=o), o.people.split(",")))
    print(f"{o.data.name}{', keypoints' if o.keypoints else ''}, people {o.people}, {SHOTS} clips:")
    print(f"{told} of {again} false alarms that repeat one of their stream say so ({told / max(again, 1):.0%})")
    print(f"{taken} of {true} alerts about anomalies are taken for a repeated false alarm ({taken / max(true, 1):.1%})")


if __name__ == "__main__":
    main()
