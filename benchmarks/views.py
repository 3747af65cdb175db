"""Measures how good alerts are when a camera gives 2-D keypoints: `python -m benchmarks.views --data DIR [--json F]`.

The clips of DIR, recorded in 3-D, are seen by a virtual camera: 4 m away, with noise of 1 % of a body's height on every
keypoint. Support and streams are of different people, both as that camera sees them, and judged as `haad-edge evaluate
--streaming` does. There is one row for each place where a camera may be mounted.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edge.bench.machine import cpu
from edge.bundle import open_bundle
from edge.clip import Clip
from edge.engine import open_engine
from edge.settings import load_settings
from trainer.camera import views
from trainer.datasets import load_set
from trainer.protocols import by_people
from trainer.streaming.measure import stream_outcomes
from trainer.streaming.report import HEAD, Row, cells, summarise
from trainer.streaming.takes import StreamPlan

CLEAN_S = 180.0


@dataclass(frozen=True, slots=True)
class View:
    """Where a camera is: degrees off people's front, give or take `yaw` for each clip, and degrees above.

    `noise` is in body heights.
    """

    aside: float = 0
    yaw: float = 10
    above: float = 10
    noise: float = 0.01

    def __call__(self, clips: list[Clip], seed: int) -> list[Clip]:
        pitch, far = (self.above, self.above), (4.0, 4.0)
        return views(clips, aside=self.aside, yaw=self.yaw, pitch=pitch, noise=self.noise, distance=far, seed=seed)


PLACES: dict[str, tuple[View | None, View | None]] = {
    "3-D joints, as recorded": (None, None),
    "in front of people": (View(), View()),
    "45° aside": (View(aside=45), View(aside=45)),
    "35° above": (View(above=35), View(above=35)),
    "in front, twice the noise": (View(noise=0.02), View(noise=0.02)),
    "in front, turned by up to 40° either way": (View(yaw=40), View(yaw=40)),
    "45° aside, support from in front": (View(), View(aside=45)),
    "in front, support in 3-D": (None, View()),
}
"""How the support is seen, and how the streams are seen; None: 3-D, as recorded."""


def watch(place: str, o: argparse.Namespace) -> Row:
    """Watch the streams from one place; returns the figures."""
    torch.set_num_threads(1)
    data, bundle = load_set(o.data), open_bundle(o.bundle)
    protocol = by_people(data.subjects, o.people.split(","))
    clips = np.array(data.clips, object)
    for n, (side, view) in enumerate(zip((protocol.pool, protocol.test), PLACES[place], strict=True)):
        if view is not None:  # each side with a seed of its own
            clips[side] = view(clips[side].tolist(), 2 * o.seed + n)
    outcomes = stream_outcomes(
        replace(data, clips=clips.tolist()),
        protocol,
        bundle,
        open_engine(bundle, max_batch=256, threads=1),
        plan=StreamPlan(clean=CLEAN_S),
        shots=[o.shots],
        draws=o.draws,
        seed=o.seed,
        settings=load_settings(),
        normals=o.normals,
        floor=False,
    )
    return summarise(list(outcomes)).by_shots[o.shots]


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument(
        "--people", default="4,8", help="whose streams are watched; default: those of UTD-MHAD held out"
    )
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES), metavar="PLACE")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--normals", type=int, default=1, help="categories that are normal at a time")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="places at a time, one thread each")
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    rows = {}
    model = open_bundle(o.bundle).model
    print(
        f"{o.data.name}, {model}, people {o.people}, {o.shots} clips, {o.normals} normal at a time: {', '.join(HEAD)}"
    )
    with ProcessPoolExecutor(o.at_once) as pool:
        for place, row in zip(o.places, pool.map(partial(watch, o=o), o.places), strict=True):
            rows[place] = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(row).items()}
            print(f"{place:44} {'  '.join(cells(row))}", flush=True)
    if o.json:
        about = {"data": o.data.name, "model": model, "people": o.people.split(","), "shots": o.shots}
        about |= {"normals": o.normals, "draws": o.draws, "seed": o.seed, "machine": cpu(), "date": str(date.today())}
        o.json.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
