"""Compares one model for all categories with one for each: `python -m benchmarks.scaling --data DIR [--json F]`.

Every category of DIR in turn is the normal one: a method gets clips of it by every other subject, all clips of the
remaining subjects are judged, and the result is one AUROC (as in `haad-edge evaluate`). All rows are of one run, and
rows with the same number of clips use the very same clips.

clips       normal clips of a category that the method gets; "all" means all clips of the training subjects
numbers     what has to be kept: trained parameters and stored features, "once" for all categories and for each
seconds     of processor time on one thread, features included: "once" before the first category, then for each new
            one (median). For `base` and raw DCT that is embedding its clips; for the others, training a model
AUROC       mean over categories and draws; "not trained on" judges only the clips of subjects that the bundle was not
            trained on. Draws differ in the clips; with all clips, only in the seed, and there are at most two
ms a clip   processor time to judge one clip, in batches, against one category more ("each") and before that ("once")

`base` is the shipped bundle, as trained: its seconds "once" are the wall-clock time in its manifest, on another day and
with all cores, and its AUROC is flattered if its manifest lists this set. It saw the training subjects, all categories,
and those judged who are not held out; "not trained on" corrects only the last of these. `benchmarks.accuracy`
separates seen and unseen categories. The other methods know only this set, and their basis (trainer/one_class.py) knows
all clips of its training subjects, without labels.

The growth lines are arithmetic, not measurements: once + categories × each, from the figures above. The device matches
at most 256 categories at once (edge/support/enrol.py).

How to read it: the cost of `base` is paid once. A new category then costs three embeddings and a few rows of memory,
whereas a flow costs a second of training, 80 times the numbers and five times the clips. In total training time flows
are cheaper up to some 2,000 categories: the gain is in each new category, not in the sum. UTD-MHAD has 16 training
clips per category; models of one category are made for hundreds, and may do better with them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.scaling_table import GROWTH, Row, tables
from edge.bench.machine import cpu
from edge.bundle import Bundle, open_bundle
from edge.clip import Clip
from edge.commands.embedding import embed_whole
from edge.engine import Engine, embed, open_engine, run_all
from edge.errors import ClipError
from edge.score import match
from edge.skeleton import Float
from trainer.baselines import raw_dct
from trainer.datasets import ClipSet, load_set, subject_split
from trainer.evaluate import auroc
from trainer.one_class import Basis, FlowConfig, OneClass, SvddConfig, fit_flow, fit_gaussian, fit_svdd

TEMPERATURE = 0.05
ROUNDS = 5
MANY = 4096
SEEDS = 2  # draws with all clips, which differ only in the seed


@dataclass(frozen=True, slots=True)
class Neighbours:
    """No model: the clips' unit rows (K, D) are kept, and matched as the device does."""

    rows: Float
    temperature: float

    @property
    def numbers(self) -> int:
        return self.rows.size

    def score(self, features: Float) -> NDArray[np.float64]:
        return match(features, self.rows, self.temperature)


@dataclass(frozen=True, slots=True)
class Method:
    """A method to compare: features (N, D) of all clips, and `fit`, from a category's rows and a seed to its model."""

    name: str
    clips: int | None
    features: Float
    fit: Callable[[Float, int], OneClass]
    seconds_a_clip: float
    """The time to make one clip's features."""
    numbers_once: int = 0
    seconds_once: float | None = 0.0
    seconds_each_match: float | None = None
    """The time to judge one clip against one category more, if it is known better than by timing `score`."""


def cost(work: Callable[[], object], count: int) -> float:
    """Measure the processor seconds of one of `work`'s `count` things: the median of several rounds after a first."""
    work()
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        found.append((time.process_time() - began) / count)
    return statistics.median(found)


def embedded(clips: list[Clip], engine: Engine, frames: int) -> Float:
    """Embed whole clips with the bundle, as `edge.commands.embedding` does with a folder: (N, D)."""
    return embed_whole(partial(embed, engine), clips, frames)


def match_cost(engine: Engine, bundle: Bundle, shots: int) -> float:
    """Measure the seconds of one category more for one clip: the engine with MANY categories against one, in turns.

    MANY, because a single category is lost in the noise of the encoder's own time.
    """
    m = bundle.manifest
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(engine.staging.size, m.frames, 15, 3)).astype(np.float32)
    visible = np.ones(joints.shape[:3], np.float32)
    found: dict[int, list[float]] = {1: [], MANY: []}
    for _ in range(ROUNDS):
        for g, costs in found.items():
            rows = rng.normal(size=(g, shots, m.embedding)).astype(np.float32)
            engine.bind(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.ones((g, shots), np.float32))
            costs.append(cost(lambda: run_all(engine, joints, visible), len(joints)))
    return (statistics.median(found[MANY]) - statistics.median(found[1])) / (MANY - 1)


def not_trained_on(bundle: Bundle, data: ClipSet) -> NDArray[np.bool_]:
    """Mark the clips of subjects that the bundle has not seen: all clips, if its manifest does not list the set."""
    for known in bundle.manifest.training.get("sets", []):
        if known.get("sha256") == data.digest or known.get("name") == data.name:
            return np.isin(data.subjects, known.get("held_out_subjects", []))
    return np.ones(len(data.clips), bool)


def judge(method: Method, data: ClipSet, free: NDArray[np.bool_], *, draws: int, seed: int) -> Row:
    """Fit and judge every category `draws` times. `free` (N,) marks the clips that "not trained on" counts.

    The draws are those of `trainer.evaluate.few_shot` with the same seed. Raises ClipError if a category has too few
    clips, or none to judge.
    """
    pool = subject_split(data.subjects)
    draws = draws if method.clips else min(draws, SEEDS)
    rng = np.random.default_rng(seed)
    judged = method.features[~pool]
    whole = np.full((draws, len(data.names)), np.nan)
    part = whole.copy()
    seconds, numbers, given = [], [], []
    model: OneClass | None = None
    for g in np.argsort(data.names, kind="stable"):
        name, members = data.names[g], np.flatnonzero(pool & (data.label == g))
        count = method.clips or len(members)
        normal = data.label[~pool] == g
        if len(members) < count or normal.all() or not normal.any():
            raise ClipError(
                f"category '{name}' cannot be measured",
                why=f"{len(members)} clips of the training subjects, {int(normal.sum())} of the others",
                fix=f"give it {count} clips or more, by several subjects",
            )
        for d in range(draws):
            rows = method.features[rng.choice(members, count, replace=False)]
            began = time.process_time()
            model = method.fit(rows, seed + d)
            seconds.append(time.process_time() - began + count * method.seconds_a_clip)
            numbers.append(model.numbers)
            given.append(count)
            score = model.score(judged)
            whole[d, g] = auroc(score[normal], score[~normal])
            mine, others = normal & free[~pool], ~normal & free[~pool]
            if mine.any() and others.any():
                part[d, g] = auroc(score[mine], score[others])
    assert model is not None
    each = method.seconds_each_match
    if each is None:
        each = cost(partial(model.score, judged), len(judged))
    means = whole.mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Row(
        method.name,
        float(np.mean(given)),
        (method.numbers_once, float(np.mean(numbers))),
        (method.seconds_once, statistics.median(seconds)),
        float(means.mean()),
        (float(low), float(high)),
        None if np.isnan(part).all() else float(np.nanmean(part)),
        (1e3 * method.seconds_a_clip, 1e3 * each),
        draws,
    )


def methods(data: ClipSet, bundle: Bundle, shots: int, steps: int | None) -> list[Method]:
    """Make the methods of all rows, with their features, and time these."""
    pool = subject_split(data.subjects)
    m, engine = bundle.manifest, open_engine(bundle, max_batch=64)
    dct, ours = raw_dct(data.clips), embedded(data.clips, engine, m.frames)
    some = data.clips[:64]
    dct_seconds = cost(lambda: raw_dct(some), len(some))
    our_seconds = cost(lambda: embedded(some, engine, m.frames), len(some))
    began = time.process_time()
    basis = Basis.fit(dct[pool])
    basis_seconds = time.process_time() - began + int(pool.sum()) * dct_seconds
    projected = basis(dct)
    project_seconds = dct_seconds + cost(lambda: basis(dct), len(dct))
    flow = FlowConfig() if steps is None else FlowConfig(steps=steps)
    svdd = SvddConfig() if steps is None else SvddConfig(steps=steps)

    def learned(name: str, clips: int | None, fit: Callable[[Float, int], OneClass]) -> Method:
        return Method(name, clips, projected, fit, project_seconds, basis.numbers, basis_seconds)

    def a_flow(rows: Float, seed: int) -> OneClass:
        return fit_flow(rows, FlowConfig(**asdict(flow) | {"seed": seed}))

    def a_svdd(rows: Float, seed: int) -> OneClass:
        return fit_svdd(rows, SvddConfig(**asdict(svdd) | {"seed": seed}))

    def a_gaussian(rows: Float, seed: int) -> OneClass:
        return fit_gaussian(rows)

    # What a first call imports and sets up must not count as a category's cost.
    for fit in (a_gaussian, a_flow, a_svdd):
        fit(projected[np.flatnonzero(pool)[:shots]], 0)
    minutes = m.training.get("minutes")
    return [
        Method("no learning: raw DCT", shots, dct, lambda rows, seed: Neighbours(rows, TEMPERATURE), dct_seconds),
        learned("a Gaussian each", shots, a_gaussian),
        learned("a Gaussian each, all clips", None, a_gaussian),
        learned("a flow each", shots, a_flow),
        learned("a flow each, all clips", None, a_flow),
        learned("deep SVDD each", shots, a_svdd),
        learned("deep SVDD each, all clips", None, a_svdd),
        Method(
            f"one model: {bundle.model}",
            shots,
            ours,
            lambda rows, seed: Neighbours(rows, m.temperature),
            our_seconds,
            int(m.architecture.get("parameters", 0)),
            None if minutes is None else 60.0 * float(minutes),
            match_cost(engine, bundle, shots),
        ),
    ]


def main() -> None:
    """Measure, print both tables, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", type=int, help="training steps of flows and deep SVDD, for a quick try; default: their own"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, bundle = load_set(options.data), open_bundle(options.bundle)
    free, pool = not_trained_on(bundle, data), subject_split(data.subjects)
    rows = []
    for method in methods(data, bundle, options.shots, options.steps):
        rows.append(judge(method, data, free, draws=options.draws, seed=options.seed))
        print(f"{method.name}, {rows[-1].clips:.3g} clips: AUROC {rows[-1].auroc:.4f}", flush=True)
    judged = sorted(set(data.subjects[~pool & free].tolist()))
    print(f"{data.name}, {bundle.model}, {options.draws} draws, seed {options.seed}; {cpu()}; {date.today()}")
    print(f'"not trained on": the judged clips of subjects {", ".join(judged) or "none"}')
    console = Console(width=max(200, Console().width))
    for table in tables(rows, len(data.names)):
        console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        named = "".join(
            f" --{k} {getattr(options, k)}"
            for k in ("shots", "draws", "seed", "steps")
            if getattr(options, k) is not None
        )
        report = {
            "data": data.name,
            "data_sha256": data.digest,
            "model": bundle.model,
            "machine": cpu(),
            "date": str(date.today()),
            "seed": options.seed,
            "command": f"python -m benchmarks.scaling --data {data.name}{named}",
            "timing": "processor seconds, one thread; the bundle's seconds once are its manifest's wall clock",
            "not_trained_on": {"subjects": judged},
            "categories": len(data.names),
            "rows": [asdict(r) | {"growth_computed": [r.grown(g) for g in GROWTH]} for r in rows],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
