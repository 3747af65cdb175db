"""Measures what is made of people who have just come into view: `python -m benchmarks.arriving --data DIR`.

NORMALS categories of DIR, drawn anew each time, are normal together, each described by SHOTS clips of other people.
Every clip of the people watched is a track of its own that lasts a few seconds: of the normal categories, and of the
others, which are abnormal from the first frame on. Which of them raise an alert? The engine itself judges.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.place import EPOCH, Place, Raised
from benchmarks.views import View
from edge.bench.inside import Replay
from edge.bench.machine import cpu
from edge.bundle import open_bundle
from edge.clip import Clip, save_clip
from edge.engine import open_engine
from edge.grid import SECOND
from edge.runtime import Runtime
from edge.settings import load_settings
from edge.skeleton import get_layout
from edge.wire import PoseFrame, encode_pose
from trainer.datasets import load_set

FPS = 20


def messages(clips: list[Clip], seconds: float) -> list[bytes]:
    """Encode a stream for each clip, in which somebody does it over and over for so long."""
    times, layout, one = np.arange(round(seconds * FPS)) / FPS, get_layout("core15"), np.zeros(1, np.int64)
    out = []
    for k, clip in enumerate(clips):
        joints, visible = clip.looped(times)
        out += [
            encode_pose(
                PoseFrame(f"s{k}", n, EPOCH + round(t * SECOND), layout, one, joints[n][None], visible[n][None])
            )
            for n, t in enumerate(times.tolist())
        ]
    return out


def judge_draws(seeds: list[int], o: argparse.Namespace) -> np.ndarray:
    """Count over draws: normal tracks, alerts among them, abnormal tracks, alerts among them, and collect delays."""
    torch.set_num_threads(1)
    bundle, settings, data = open_bundle(o.bundle), load_settings(), load_set(o.data)
    if o.keypoints:
        data = replace(data, clips=View()(data.clips, 0))
    settings = settings.model_copy(update={"max_streams": 4096})
    engine, rows = open_engine(bundle, max_batch=settings.max_batch), []
    mine = np.isin(data.subjects, o.people.split(","))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        normal = rng.choice(len(data.names), o.normals, replace=False)
        with TemporaryDirectory() as folder:
            place, sink = Place(Path(folder), bundle, engine, settings), Raised()
            for g in normal:
                for i in rng.choice(np.flatnonzero(~mine & (data.label == g)), o.shots, replace=False):
                    save_clip(place.support / data.names[g] / f"{i}.npz", data.clips[i])
            tracks = np.flatnonzero(mine)
            source = Replay(messages([data.clips[i] for i in tracks], o.seconds))
            loop = Runtime(settings, bundle, engine, place.known(True), source, sink)
            while loop.step(0):
                pass
            loop.dispatch.flush()
        first = {int(a.stream[1:]): (a.end - EPOCH) / SECOND for a in reversed(sink.alerts)}
        rows += [(data.label[i] in normal, first.get(k, np.inf)) for k, i in enumerate(tracks)]
    return np.array(rows, float)


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--people", default="4,8", help="who is watched; default: those of UTD-MHAD held out")
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument("--normals", type=int, default=4, help="categories that are normal at a time")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each track lasts")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument(
        "--keypoints", action="store_true", help="use 2-D keypoints, as from a camera in front of people"
    )
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    halves = [list(range(o.draws))[k::2] for k in range(2)]
    with ProcessPoolExecutor(2) as pool:
        rows = np.concatenate(list(pool.map(partial(judge_draws, o=o), halves)))
    normal, raised = rows[:, 0] == 1, np.isfinite(rows[:, 1])
    found, false = raised[~normal].mean(), raised[normal].mean()
    when = float(np.median(rows[~normal & raised, 1]))
    print(f"{o.data.name}{', keypoints' if o.keypoints else ''}, {o.normals} normal, {o.shots} clips, {o.seconds:g} s:")
    print(f"{found:.1%} of {(~normal).sum()} abnormal tracks found, after {when:.2f} s; ", end="")
    print(f"{false:.1%} of {normal.sum()} normal tracks alarm")
    if o.json:
        about = {"data": o.data.name, "model": open_bundle(o.bundle).model, "normals": o.normals, "shots": o.shots}
        about |= {"seconds": o.seconds, "draws": o.draws, "keypoints": o.keypoints, "machine": cpu()}
        about |= {
            "date": str(date.today()),
            "found": round(found, 6),
            "after": round(when, 6),
            "false": round(false, 6),
        }
        o.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
