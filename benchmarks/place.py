"""Measures what a few minutes of a place's own operation are worth: `python -m benchmarks.place --data DIR [--json F]`.

Each category of DIR in turn is the only normal one, and each of PEOPLE in turn is the person in front of the camera.
The person's clips are split: the first half of each category's clips makes MINUTES of normal operation, the second half
what is judged afterwards: two minutes of normal activity, then anomalies of other categories. The engine itself judges:

    as it starts       with K clips of other people
    calibrated         the same after `haad-edge calibrate` on a recording of those minutes
    accepted           the same with the person's own first clips added, as `haad-edge support accept` does
    both               calibrated after that
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.views import View
from edge.bench.inside import Replay, Silent
from edge.bench.machine import cpu
from edge.bundle import Bundle, open_bundle
from edge.clip import save_clip
from edge.commands.calibrate import refine, write_refined
from edge.engine import Engine, open_engine
from edge.events import Alert, decode_event
from edge.grid import SECOND
from edge.recordings.recording import Writer, read
from edge.runtime import Runtime
from edge.settings import Settings, load_settings
from edge.skeleton import CORE15, get_layout
from edge.support.cache import FeatureCache
from edge.support.enrol import REFINED, SupportSet, load_support
from edge.support.transitions import TransitionPlan
from edge.wire import PoseFrame, encode_pose
from trainer.datasets import ClipSet, load_set
from trainer.streaming.measure import LONG, delay_of
from trainer.streaming.takes import StreamPlan, Take, make_takes

WAYS = ("as it starts", "calibrated", "accepted", "both")
CLEAN_S = 120.0
EPOCH = 1_700_000_000 * SECOND
Row = tuple[float, int, list[float]]
"""Camera-hours of normal activity, false alarms in them, and the delay of the alert for each anomaly of LONG seconds or
more: infinite if there was none."""


class Raised(Silent):
    """A sink that keeps new alerts."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def send(self, message: bytes) -> None:
        event = decode_event([message])
        if isinstance(event, Alert) and event.type == "new":
            self.alerts.append(event)


def messages(take: Take) -> list[bytes]:
    """Encode the take as a tracker would send it."""
    layout, one = get_layout("core15"), np.zeros(1, np.int64)
    assert layout.joints == CORE15
    return [
        encode_pose(PoseFrame("cam", n, EPOCH + round(t * SECOND), layout, one, j[None], v[None]))
        for n, (t, j, v) in enumerate(zip(take.time.tolist(), take.joints, take.visible, strict=True))
    ]


class Place:
    """A support folder and the engine that serves it."""

    def __init__(self, root: Path, bundle: Bundle, engine: Engine, settings: Settings) -> None:
        self.root, self.support = root, root / "support"
        self._bundle, self._engine, self._settings = bundle, engine, settings
        self._cache, self._transitions = (
            FeatureCache(root / "cache"),
            TransitionPlan(settings.normal, settings.max_transitions),
        )

    def known(self, refined: bool) -> SupportSet:
        """Load the folder as the engine does."""
        return load_support(
            self.support, self._bundle, self._engine, self._cache, refined=refined, transitions=self._transitions
        )

    def calibrate(self, take: Take) -> None:
        """Calibrate from a recording of the take, as `haad-edge calibrate` does."""
        path = self.root / "normal.haad"
        with Writer(path) as out:
            for m, t in zip(messages(take), take.time.tolist(), strict=True):
                out.add([m], EPOCH + round(t * SECOND))
        found = refine(read(path), self._settings, self._bundle, self._engine, self.known(False))
        write_refined(self.support, found, recording=path, model=self._bundle.model)
        path.unlink()

    def watch(self, take: Take) -> Row:
        """Let the engine judge a take with the folder as it is now."""
        sink, source = Raised(), Replay(messages(take))
        loop = Runtime(self._settings, self._bundle, self._engine, self.known(True), source, sink)
        while loop.step(0):
            pass
        loop.dispatch.flush()
        raised = np.array([(a.end - EPOCH) / SECOND for a in sink.alerts])
        delays = [delay_of(raised, x.start, x.end) for x in take.spans if x.end - x.start >= LONG]
        return (take.clean - self._bundle.manifest.seconds) / 3600, int((raised <= take.clean).sum()), delays


def halves(data: ClipSet, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a person's clips, marked by `mine` (N,), into the first half of each category's and the rest."""
    first = np.zeros(len(mine), bool)
    for g in range(len(data.names)):
        members = np.flatnonzero(mine & (data.label == g))
        first[members[: (len(members) + 1) // 2]] = True
    return first, mine & ~first


def judge_person(person: str, o: argparse.Namespace) -> Iterator[tuple[str, Row]]:
    """Judge a person: each category as the normal one, with each draw of support, in each of WAYS."""
    torch.set_num_threads(1)
    bundle, settings, data = open_bundle(o.bundle), load_settings(), load_set(o.data)
    if o.keypoints:
        data = replace(data, clips=View()(data.clips, o.seed))
    engine = open_engine(bundle, max_batch=settings.max_batch, threads=1)
    mine = data.subjects == person
    before, after = halves(data, mine)
    others = ~np.isin(data.subjects, o.people.split(","))
    quiet = {t.normal[0]: t for t in make_takes(data, before, StreamPlan(clean=60 * o.minutes, anomalies=0))}
    for take in make_takes(data, after, StreamPlan(clean=CLEAN_S)):
        (name,) = take.normal
        of_it = data.label == data.names.index(name)
        pool, rng = np.flatnonzero(others & of_it), np.random.default_rng((o.seed, data.names.index(name)))
        if len(pool) < o.shots or name not in quiet:
            continue
        for _ in range(o.draws):
            with TemporaryDirectory() as folder:
                place = Place(Path(folder), bundle, engine, settings)

                def add(numbers: Sequence[int], place: Place = place, name: str = name) -> None:
                    for i in numbers:
                        save_clip(place.support / name / f"{i}.npz", data.clips[i])

                add(rng.choice(pool, o.shots, replace=False).tolist())
                yield WAYS[0], place.watch(take)
                place.calibrate(quiet[name])
                yield WAYS[1], place.watch(take)
                (place.support / REFINED).unlink()
                add(np.flatnonzero(before & of_it).tolist())
                yield WAYS[2], place.watch(take)
                place.calibrate(quiet[name])
                yield WAYS[3], place.watch(take)


def all_rows(person: str, o: argparse.Namespace) -> list[tuple[str, Row]]:
    """The rows of `judge_person` as a list, which can be sent to another process."""
    return list(judge_person(person, o))


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """False alarms per hour, the share of streams that have any, anomalies found, their median delay, and the hours."""
    hours, false, delays = zip(*rows, strict=True)
    delay = np.concatenate(delays)
    return {
        "false_alarms": float(sum(false) / sum(hours)),
        "streams_with_any": float(np.mean(np.array(false) > 0)),
        "recall": float(np.isfinite(delay).mean()),
        "delay": float(np.median(delay)),
        "hours": float(sum(hours)),
    }


def options(doc: str | None, draws: int) -> argparse.Namespace:
    """Read the command line; `draws` is the default of that option."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument(
        "--people", default="4,8", help="who is in front of the camera; default: those of UTD-MHAD held out"
    )
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument("--minutes", type=float, default=3.0, help="length of the normal operation to calibrate from")
    parser.add_argument(
        "--keypoints", action="store_true", help="use 2-D keypoints, as from a camera in front of people"
    )
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    o = options(__doc__, draws=2)
    people, model = o.people.split(","), open_bundle(o.bundle).model
    with ProcessPoolExecutor(2) as pool:
        found = [row for rows in pool.map(partial(all_rows, o=o), people) for row in rows]
    rows: dict[str, dict[str, Any]] = {way: summary([r for w, r in found if w == way]) for way in WAYS}
    print(f"{o.data.name}, {model}, people {o.people}, {o.shots} clips, {o.minutes:g} minutes: false alarms/h, streams")
    print("that have any, found of 1.5 s or more, median delay")
    for way, r in rows.items():
        shares = f"{r['streams_with_any']:6.1%} {r['recall']:6.1%}"
        print(f"{way:14} {r['false_alarms']:6.1f} {shares} {r['delay']:5.2f} s   ({r['hours']:.1f} h)")
    if o.json:
        about = {"data": o.data.name, "model": model, "people": people, "shots": o.shots, "minutes": o.minutes}
        about |= {
            "keypoints": o.keypoints,
            "draws": o.draws,
            "seed": o.seed,
            "machine": cpu(),
            "date": str(date.today()),
        }
        rows = {way: {k: round(v, 6) for k, v in r.items()} for way, r in rows.items()}
        o.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
