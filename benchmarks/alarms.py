"""Measures which clips raise alerts at the default threshold: `python -m benchmarks.alarms --data DIR [--json F]`.

Every category of DIR in turn is the only normal one, described by K clips of every other subject. The clips of the
remaining subjects are each watched for WATCHED_S seconds as the engine would (looped, windows every stride, default
settings): those of the category should raise no alert, those of all others should. Whole clips are evaluated by
`haad-edge evaluate`.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from edge.bench.machine import cpu
from edge.bundle import Bundle, open_bundle
from edge.engine import Engine, embed, open_engine
from edge.score import level_of, margin_of
from edge.settings import Settings
from edge.skeleton import Float
from edge.support.enrol import clip_windows
from edge.support.transitions import repeated, transition_windows
from trainer.datasets import ClipSet, load_set, subject_split
from trainer.streaming.watch import Run, alerts, follow, score

WATCHED_S = 6.0


def watched(data: ClipSet, bundle: Bundle, engine: Engine, stride: float) -> Float:
    """Embed the windows of each clip while it is watched: (clips, windows, D)."""
    m = bundle.manifest
    starts = np.arange(0, WATCHED_S - m.seconds + 1e-9, stride)
    times = (starts[:, None] + np.arange(m.frames) * m.seconds / m.frames).ravel()
    rng = np.random.default_rng(0)
    out = []
    for clip in data.clips:
        joints, visible = clip.looped(times + rng.uniform(0, clip.seconds))
        shape = (len(starts), m.frames)
        out.append(embed(engine, joints.reshape(*shape, 15, 3), visible.reshape(*shape, 15)))
    return np.stack(out)


def raised(scores: Float, settings: Settings) -> int:
    """Count the clips, rows of scores (clips, windows), that raise an alert under the settings."""
    end = settings.stride * np.arange(scores.shape[1])
    return sum(len(r) > 0 for r in alerts([Run(end, row, np.ones(len(end))) for row in scores], settings))


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--bundle", type=Path, help="default: base")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--people", help="watch only these of the remaining subjects, separated by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bundle, settings = open_bundle(options.bundle), Settings()
    engine, m, calibration = open_engine(bundle, max_batch=64), bundle.manifest, bundle.calibration()
    data = load_set(options.data)
    pool = subject_split(data.subjects)
    support = {int(i): embed(engine, *clip_windows(data.clips[i], m.frames, m.seconds)) for i in np.flatnonzero(pool)}

    @cache
    def between(i: int, j: int) -> Float:
        return embed(engine, *transition_windows(data.clips[i], data.clips[j], m.frames, m.seconds))

    watch = ~pool
    if options.people:
        watch &= np.isin(data.subjects, options.people.split(","))
    test = data.subset(watch)
    seen = watched(test, bundle, engine, settings.stride)
    rng = np.random.default_rng(0)
    rows = []
    for g, name in enumerate(data.names):
        mine = test.label == g
        for _ in range(options.draws):
            chosen = rng.choice(np.flatnonzero(pool & (data.label == g)), options.shots, replace=False)
            groups = [[support[i] for i in chosen.tolist()], [between(i, j) for i, j in repeated(chosen.tolist())]]
            groups = groups[: 1 + min(settings.max_transitions, 1)]
            ends = settings.stride * np.arange(seen.shape[1])
            alone, expected = score(
                seen.reshape(-1, seen.shape[-1]),
                np.repeat(np.arange(len(seen)), len(ends)),
                np.tile(ends, len(seen)),
                groups,
                categories=1,
                level=np.array([level_of(g, calibration, m.temperature) for g in groups]),
                margin=np.array([margin_of(len(g), calibration) for g in groups]),
                temperature=m.temperature,
            )
            runs = [Run(ends, row, np.ones(len(ends))) for row in alone.reshape(seen.shape[:2])]
            scores = np.stack([r.score for r in follow(runs, list(expected.reshape(seen.shape[:2])))])
            rows.append(
                {
                    "category": name,
                    "window_auroc": float(roc_auc_score(np.repeat(~mine, scores.shape[1]), scores.ravel())),
                    "normal_windows_above_limit": float((scores[mine] >= 1).mean()),
                    "other_windows_above_limit": float((scores[~mine] >= 1).mean()),
                    "normal_clips_alerted": raised(scores[mine], settings) / int(mine.sum()),
                    "other_clips_alerted": raised(scores[~mine], settings) / int((~mine).sum()),
                }
            )
    names = [k for k in rows[0] if k != "category"]
    print(f"{options.data}, {bundle.model}, {options.shots} shots, {options.draws} draws; {cpu()}; {date.today()}")
    found = {k: float(np.mean([r[k] for r in rows])) for k in names}  # type: ignore[arg-type]
    for k, v in found.items():
        by_category = [np.mean([r[k] for r in rows if r["category"] == n]) for n in data.names]  # type: ignore[arg-type]
        print(f"{k:28} mean {v:.4f}   over categories {min(by_category):.3f} to {max(by_category):.3f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        name = options.data.resolve().name
        report = {"data": name, "people": sorted(set(test.subjects.tolist())), "model": bundle.model}
        report |= {"shots": options.shots, "mean": found, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
