"""Measures how well alerts are put together: `python -m benchmarks.alike --data SET [SET ...]`.

Each clip of the people whom the bundle was not trained on is an alert, as on the page of `haad-edge view`. The support,
whose limits decide what is near, has SHOTS clips of other people in each category. An action is found well if its clips
are together (few groups) and alone (purity: the share of clips in groups that are of the group's most frequent action).
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edge.alerts.alike import NEAR, alike
from edge.bundle import Bundle, open_bundle
from edge.clip import save_clip
from edge.commands.judged import windows
from edge.engine import Engine, embed, open_engine
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.support.transitions import TransitionPlan
from trainer.datasets import ClipSet, load_set

SHOTS = 3
FACTORS = (0.25, 0.5, 1.0)


def limit_of(data: ClipSet, others: np.ndarray, bundle: Bundle, engine: Engine) -> float:
    """The median limit of a support folder with SHOTS clips in each category, of the people marked in `others` (N,)."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for g, name in enumerate(data.names):
            pool = np.flatnonzero(others & (data.label == g))
            for i in rng.choice(pool, min(SHOTS, len(pool)), replace=False):
                save_clip(Path(folder) / "support" / name / f"{i}.npz", data.clips[i])
        cache, plan = FeatureCache(Path(folder) / "cache"), TransitionPlan({}, 0)
        return float(np.median(load_support(Path(folder) / "support", bundle, engine, cache, transitions=plan).limit))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="DIR/<category>/*.npz")
    parser.add_argument("--bundle", type=Path, help="default: base")
    o = parser.parse_args()
    bundle = open_bundle(o.bundle)
    engine, m = open_engine(bundle), bundle.manifest
    held_out = {s["name"]: s["held_out_subjects"] for s in m.training["sets"]}
    print(f"{bundle.model}: near is a factor ({NEAR:g} in use) of the median limit")
    print(f"{'set':14} {'clips':>5} {'actions':>7} {'factor':>6} {'groups':>6} {'in groups':>9} {'purity':>6}")
    for path in o.data:
        data = load_set(path)
        mine = np.isin(data.subjects, held_out[path.name])
        near, vectors, action = limit_of(data, ~mine, bundle, engine), [], []
        for i in np.flatnonzero(mine):
            starts, joints, visible = windows(data.clips[i], m.frames, m.seconds, 0.25)
            if len(starts):
                mean = embed(engine, joints, visible).mean(0)
                vectors.append(mean / np.linalg.norm(mean))
                action.append(int(data.label[i]))
        for factor in FACTORS:
            groups = [g for g in alike(np.array(vectors, np.float32), factor * near) if len(g) > 1]
            together = sum(map(len, groups))
            most = sum(Counter(action[i] for i in g).most_common(1)[0][1] for g in groups)
            print(
                f"{path.name:14} {len(vectors):5} {len(set(action)):7} {factor:6.2f} {len(groups):6} "
                f"{together / len(vectors):9.0%} {most / max(together, 1):6.0%}"
            )


if __name__ == "__main__":
    main()
