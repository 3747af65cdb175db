"""Measures few-shot accuracy: `make accuracy DATA=DIR`, or `python -m benchmarks.accuracy --data DIR`.

Every job trains one encoder on sets of DIR/<set>/<category>/*.npz and judges categories that it has, and has not, been
trained on. Support and judged clips are of different people, K = 3. The figures are each category's area under the ROC
curve, and the mean over categories.

    fold-0 … fold-3   trained on UTD-MHAD's training subjects without every fourth category; also judged through
                      virtual cameras and with joints hidden
    without-<set>     trained on all sets but one, judged on that one; ui_prmd: 5 correct repetitions of a person and
                      movement against that person's other correct ones and the incorrect ones

Each job's figures go to a file under --out. A job that has its file is not run again, so an interrupted run goes on
where it stopped. At the end accuracy.md is made of all files there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy_table import summary, write_table
from benchmarks.conditions import CONDITIONS
from edge.bench.machine import cpu
from edge.bundle import open_bundle, write_bundle
from edge.clip import Clip
from edge.commands.embedding import embed_whole
from edge.skeleton import Float
from trainer.augment import AugmentConfig
from trainer.baselines import raw_dct, raw_distance, raw_windows
from trainer.config import TrainConfig, load_config
from trainer.datasets import ClipSet, find_sets, load_set
from trainer.encoder import Encoder, EncoderConfig, shares
from trainer.evaluate import Distance, few_shot, mean_cosine
from trainer.fit import Trainer, embed_clips
from trainer.motion.config import MotionConfig
from trainer.motion.fit import MotionTrainer, make_model
from trainer.motion.generate import Recipe, widen
from trainer.paper import PaperConfig, embed_paper, mean_euclidean, prepare, train_paper
from trainer.protocols import by_subject, leave_out

FOLDS, MAIN, PAIRED = 4, "utd_mhad", "ui_prmd"
METHODS = ("floor", "floor-cuts", "paper", "ours")
WIDER = "-generated"
"""The suffix of a method that trains on as many generated clips again, from a motion model of the same clips."""
HEADS = (0.0, 0.25)
"""Shares of the head in the embedding that are measured besides the configured one."""
Embed = Callable[[Sequence[Clip]], Float]


@dataclass(frozen=True, slots=True)
class Run:
    """The options that all jobs share."""

    data: Path
    config: Path
    steps: int | None
    epochs: int
    motion_steps: int
    strength: float
    draws: int
    seed: int


def fit(method: str, sets: list[ClipSet], run: Run) -> tuple[Embed, Distance]:
    """Train an encoder; returns it as a function of clips, and the distance that goes with it."""
    if method.endswith(WIDER):
        with TemporaryDirectory() as folder:
            motion = MotionTrainer(sets, MotionConfig(seed=run.seed, hold_out=0, steps=run.motion_steps))
            motion.run(lambda step, loss, news: None)
            model = make_model(motion, Path(folder))
            sets = [widen(s, model, 1, seed=run.seed, recipe=Recipe(strength=run.strength)) for s in sets]
        method = method.removesuffix(WIDER)
    if method == "floor":
        return lambda clips: raw_dct(list(clips)), raw_distance
    if method == "floor-cuts":
        return lambda clips: embed_whole(raw_windows, clips, EncoderConfig().frames), raw_distance
    if method == "paper":
        offset = np.cumsum([0] + [len(s.names) for s in sets])
        label = np.concatenate([s.label + o for s, o in zip(sets, offset, strict=False)])
        counts = np.bincount(label, minlength=offset[-1])
        clips = [c for s in sets for c in s.clips]
        enough = counts[label] >= 2  # its batches hold two clips of every category
        joints = prepare([c for c, e in zip(clips, enough, strict=True) if e])
        encoder = train_paper(joints, label[enough], PaperConfig(seed=run.seed, epochs=run.epochs))
        return lambda clips: embed_paper(encoder, prepare(list(clips))), mean_euclidean
    trainer = Trainer(sets, configuration(run, alone=len(sets) == 1))
    trainer.run(lambda step, loss, news: None)
    return partial(_embed, trainer.average), mean_cosine


def _embed(encoder: Encoder, clips: Sequence[Clip], head: float | None = None) -> Float:
    """Embed whole clips, with another share of the head in the embedding if one is given."""
    c = encoder.config
    encoder.share.copy_(shares(c.head if head is None else head, c.slow))
    return embed_clips(encoder, list(clips))


def configuration(run: Run, *, alone: bool) -> TrainConfig:
    """The configuration of the base model, with nobody held out of a job's training clips, for `run.steps`.

    `alone`: the job has one set, and is judged on the same. Its head knows too little of other actions to get a share
    of the embedding, and there is no other sensor to prepare for.
    """
    c = load_config(run.config, steps=run.steps, seed=run.seed, hold_out=0, threads=1)
    more: dict[str, Any] = {"validate_every": c.steps + 1}
    if alone:
        usual = AugmentConfig()
        same = replace(c.augment, tilt=usual.tilt, bone=usual.bone, offset=usual.offset)
        more |= {"encoder": replace(c.encoder, head=0.0), "augment": same}
    return c.model_copy(update=more)


def fold(method: str, number: int, run: Run) -> dict[str, Any]:
    """Train and judge one fold of the main set: {condition: {seen, unseen, each with its interval}}."""
    data = load_set(run.data / MAIN)
    plan = leave_out(by_subject(data.subjects), data.label, number, FOLDS)
    embed, distance = fit(method, [data.subset(plan.train)], run)
    names = np.array(data.names)[data.label]

    def judge(support: Sequence[Clip], judged: Sequence[Clip]) -> dict[str, Any]:
        z = np.where(plan.pool[:, None], embed(support), embed(judged))
        found = few_shot(z, names, data.subjects, draws=run.draws, seed=run.seed, distance=distance, protocol=plan)
        parts = {k: {"auroc": m.mean, "low": m.low, "high": m.high} for k, m in found.parts.items()}
        return parts | {"categories": found.categories}

    out = {"as recorded": judge(data.clips, data.clips)}
    if not method.startswith("paper"):
        for name, condition in CONDITIONS.items():
            changed = condition.judged(data.clips, run.seed)
            out[name] = judge(changed if condition.support_too else data.clips, changed)
    return out


def without(method: str, name: str, run: Run) -> dict[str, Any]:
    """Train on all sets but `name`, and judge on that one."""
    c = load_config(run.config)
    others = [p for p in find_sets(run.data) if p.name != name]
    sets = [load_set(p, exclude=c.exclude, merge=c.merge) for p in others] if not method.startswith("floor") else []
    embed, distance = fit(method, [s for s in sets if len(s.names) > 1], run)
    pairs = name == PAIRED
    data = load_set(run.data / name) if pairs else load_set(run.data / name, exclude=c.exclude, merge=c.merge)
    names = np.array(data.names)[data.label]

    def judge(embed: Embed) -> dict[str, Any]:
        if pairs:
            return paired(data, embed, distance, run)
        found = few_shot(embed(data.clips), names, data.subjects, draws=run.draws, seed=run.seed, distance=distance)
        auroc = {"auroc": found.mean, "low": found.interval[0], "high": found.interval[1]}
        return {"unseen": auroc, "categories": found.categories}

    out = {"as recorded": judge(embed)}
    if method.startswith("ours"):
        out |= {f"as recorded, head {share:g}": judge(partial(embed, head=share)) for share in HEADS}
    return out


def paired(data: ClipSet, embed: Embed, distance: Distance, run: Run, shots: int = 5) -> dict[str, Any]:
    """Mean over movements and people of the AUROC of a person's incorrect repetitions against their correct ones."""
    z, names, people = embed(data.clips), np.array(data.names)[data.label], data.subjects
    rng = np.random.default_rng(run.seed)
    movements = sorted({n.removesuffix("_correct") for n in data.names if n.endswith("_correct")})
    found: dict[str, list[list[float]]] = {m: [] for m in movements}
    for m in movements:
        for person in sorted(set(people.tolist())):
            right, wrong = (
                np.flatnonzero((names == f"{m}_{k}") & (people == person)) for k in ("correct", "incorrect")
            )
            if len(right) <= shots or not len(wrong):
                continue
            rows = []
            for _ in range(run.draws):
                support = rng.choice(right, shots, replace=False)
                judged = np.concatenate([np.setdiff1d(right, support), wrong])
                rows.append(float(roc_auc_score(np.isin(judged, wrong), distance(z[judged], z[support]))))
            found[m].append(rows)
    means = np.mean([np.mean(rows, 0) for rows in found.values()], 0)
    low, high = np.percentile(means, [2.5, 97.5])
    auroc = {"auroc": float(means.mean()), "low": float(low), "high": float(high)}
    return {"unseen": auroc, "categories": {m: round(float(np.mean(rows)), 5) for m, rows in found.items()}}


def work(job: str, method: str, run: Run) -> dict[str, Any]:
    """Run one job; returns its figures, and how they were made and at what cost."""
    torch.set_num_threads(1)
    began, spent = time.monotonic(), time.process_time()
    kind, _, rest = job.partition("-")
    found = fold(method, int(rest), run) if kind == "fold" else without(method, rest, run)
    command = f"python -m benchmarks.accuracy --data DATA --jobs-named {job} --methods {method}"
    if method.startswith("ours") and run.steps:
        command += f" --steps {run.steps}"
    if method.startswith("paper"):
        command += f" --epochs {run.epochs}"
    if method.endswith(WIDER):
        command += f" --motion-steps {run.motion_steps} --strength {run.strength:g}"
    return {
        "job": job,
        "method": method,
        "figures": found,
        "seed": run.seed,
        "draws": run.draws,
        "command": command,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "cpu_minutes": round((time.process_time() - spent) / 60, 1),
        "machine": cpu(),
        "date": str(date.today()),
    }


def main() -> None:
    """Run the jobs that are missing, two at a time or as many as asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<set>/<category>/*.npz")
    parser.add_argument("--config", type=Path, default=Path("configs/train-base.yaml"))
    parser.add_argument("--methods", default=",".join(METHODS), help="also possible: ours-generated, paper-generated")
    parser.add_argument("--jobs-named", help="run only these, separated by commas")
    parser.add_argument("--steps", type=int, help="training steps of our encoder; default: the configuration's")
    parser.add_argument("--epochs", type=int, default=PaperConfig().epochs, help="training epochs of recipe paper")
    parser.add_argument("--motion-steps", type=int, default=3000, help="training steps of the motion models")
    parser.add_argument("--strength", type=float, default=0.3, help="how much they change a clip")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="jobs at a time, one thread each")
    parser.add_argument("--bundle", type=Path, help="also write our recipe's figures into this bundle's manifest")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    o = parser.parse_args()
    run = Run(o.data, o.config, o.steps, o.epochs, o.motion_steps, o.strength, o.draws, o.seed)
    present = [p.name for p in find_sets(o.data)]
    jobs = [f"fold-{i}" for i in range(FOLDS)] * (MAIN in present) + [f"without-{n}" for n in present if n != "raw"]
    if o.jobs_named:
        jobs = o.jobs_named.split(",")
    folder = o.out / "accuracy"
    folder.mkdir(parents=True, exist_ok=True)
    asked = [(j, m) for m in o.methods.split(",") for j in jobs]
    missing = [(j, m) for j, m in asked if not (folder / f"{j}-{m}.json").exists()]
    with ProcessPoolExecutor(o.at_once) as pool:
        running = {pool.submit(work, j, m, run): (j, m) for j, m in missing}
        for done in as_completed(running):
            j, m = running[done]
            found = done.result()
            (folder / f"{j}-{m}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{j} {m}: {found['minutes']} min  {short(found['figures'])}", flush=True)
    print(write_table(folder, o.out / "accuracy.md"))
    if o.bundle:
        bundle = open_bundle(o.bundle)
        accuracy = bundle.manifest.accuracy | {"recipe": summary(folder)}
        write_bundle(o.bundle, bundle.manifest.model_copy(update={"accuracy": accuracy}), {})


def short(figures: dict[str, Any]) -> str:
    """All figures of a job as one line."""
    return "; ".join(
        f"{condition}: " + " ".join(f"{k} {v['auroc']:.4f}" for k, v in parts.items() if k != "categories")
        for condition, parts in figures.items()
    )


if __name__ == "__main__":
    main()
