"""Measures what fewer, or more, false alarms cost: `python -m benchmarks.levers --data DIR [--json F]`.

As in `benchmarks.place`, each category is the only normal one in turn, with K clips of other people and the first half
of the person's own, and the place is calibrated. For each of LEVERS the engine itself judges the other half:
CLEAN_S of normal activity, then anomalies of 1.5 to 4 s; and anomalies of 6 to 12 s, as when somebody has fallen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.place import Place, Row, halves, options, summary
from benchmarks.views import View
from edge.bench.machine import cpu
from edge.bundle import open_bundle
from edge.clip import save_clip
from edge.engine import open_engine
from edge.settings import load_settings
from trainer.datasets import load_set
from trainer.streaming.takes import StreamPlan, make_takes

LEVERS: dict[str, dict[str, Any]] = {
    "sensitivity: high": {"sensitivity": "high"},
    "the defaults": {},
    "sensitivity: low": {"sensitivity": "low"},
    "raise_after: 8": {"raise_after": 8},
    "raise_after: 16": {"raise_after": 16},
    "sensitivity: low, raise_after: 8": {"sensitivity": "low", "raise_after": 8},
}
CLEAN_S = 300.0
SHORT = StreamPlan(clean=CLEAN_S, short_share=0.0)
LONG = StreamPlan(clean=10.0, anomalies=10, length=(6.0, 12.0), short_share=0.0)


def judge_person(person: str, o: argparse.Namespace) -> Iterator[tuple[str, Row, Row]]:
    """Judge a person with each lever: the rows of the short anomalies and of the long ones."""
    torch.set_num_threads(1)
    bundle, data = open_bundle(o.bundle), load_set(o.data)
    if o.keypoints:
        data = replace(data, clips=View()(data.clips, o.seed))
    engine = open_engine(bundle, max_batch=load_settings().max_batch, threads=1)
    before, after = halves(data, data.subjects == person)
    others = ~np.isin(data.subjects, o.people.split(","))
    quiet, short, long = (
        {t.normal[0]: t for t in make_takes(data, of, plan)}
        for of, plan in ((before, StreamPlan(clean=60 * o.minutes, anomalies=0)), (after, SHORT), (after, LONG))
    )
    for g, name in enumerate(data.names):
        of_it, rng = data.label == g, np.random.default_rng((o.seed, g))
        pool = np.flatnonzero(others & of_it)
        if len(pool) < o.shots or not all(name in takes for takes in (quiet, short, long)):
            continue
        for _ in range(o.draws):
            clips = [*rng.choice(pool, o.shots, replace=False).tolist(), *np.flatnonzero(before & of_it).tolist()]
            for lever, settings in LEVERS.items():
                with TemporaryDirectory() as folder:
                    place = Place(Path(folder), bundle, engine, load_settings(settings))
                    for i in clips:
                        save_clip(place.support / name / f"{i}.npz", data.clips[i])
                    place.calibrate(quiet[name])
                    yield lever, place.watch(short[name]), place.watch(long[name])


def all_rows(person: str, o: argparse.Namespace) -> list[tuple[str, Row, Row]]:
    """The rows of `judge_person` as a list, which can be sent to another process."""
    return list(judge_person(person, o))


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    o = options(__doc__, draws=1)
    people, model = o.people.split(","), open_bundle(o.bundle).model
    with ProcessPoolExecutor(2) as pool:
        found = [row for rows in pool.map(partial(all_rows, o=o), people) for row in rows]
    rows = {}
    for lever in LEVERS:
        short, long = (summary([row[k] for row in found if row[0] == lever]) for k in (1, 2))
        rows[lever] = {**short, "long_recall": long["recall"], "long_delay": long["delay"]}
    print(f"{o.data.name}{', keypoints' if o.keypoints else ''}, {model}, people {o.people}, {o.shots} clips and their")
    print(f"own, calibrated on {o.minutes:g} minutes: false alarms/h, streams with any; anomalies of 1.5 to 4 s found,")
    print("median delay; the same of 6 to 12 s")
    for lever, r in rows.items():
        shares = f"{r['streams_with_any']:6.1%}  {r['recall']:6.1%} {r['delay']:5.2f} s"
        print(f"{lever:34} {r['false_alarms']:6.2f} {shares}  {r['long_recall']:6.1%} {r['long_delay']:5.2f} s")
    print(f"{next(iter(rows.values()))['hours']:.1f} hours of normal activity in each row")
    if o.json:
        about = {"data": o.data.name, "model": model, "people": people, "shots": o.shots, "minutes": o.minutes}
        about |= {"keypoints": o.keypoints, "draws": o.draws, "seed": o.seed}
        about |= {"machine": cpu(), "date": str(date.today())}
        rows = {lever: {k: round(v, 6) for k, v in r.items()} for lever, r in rows.items()}
        o.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
