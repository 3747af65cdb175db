"""Few-shot evaluation: how well K clips of a category tell it from all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from sklearn.metrics import roc_auc_score

from edge.errors import ClipError
from edge.score import match
from edge.skeleton import Float
from trainer.datasets import subject_split

Distance = Callable[[Float, Float], NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class FewShot:
    """AUROC per category, its mean over categories and the 95 % interval of that mean over support draws."""

    shots: int
    draws: int
    split: str
    seed: int
    categories: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    mean: float
    interval: tuple[float, float]
    clips: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def few_shot(
    embedding: Float,
    category: NDArray[np.str_],
    subject: NDArray[np.str_],
    *,
    shots: int = 3,
    draws: int = 20,
    split: str = "subject",
    seed: int = 0,
    distance: Distance = partial(match, temperature=0.05),
) -> FewShot:
    """For every category: draw `shots` support clips, score all test clips by distance, take the AUROC.

    embedding (N, D); `distance` takes test rows (M, D) and support rows (shots, D) to (M,). `split='subject'`: support
    from every other subject, test on the rest; `'random'`: support from anywhere, test on all clips but those. Normal
    is the negative class.
    """
    rng = np.random.default_rng(seed)
    pool = subject_split(subject) if split == "subject" else np.ones(len(category), bool)
    names = sorted(set(category.tolist()))
    if len(names) < 2:
        raise ClipError("evaluation needs two categories or more", why=f"found {names}")
    auroc = np.full((draws, len(names)), np.nan)
    for g, name in enumerate(names):
        members = np.flatnonzero(pool & (category == name))
        if len(members) < shots:
            raise ClipError(
                f"category '{name}' has {len(members)} clips to draw a support of {shots} from",
                fix="lower --shots, or use --split random",
            )
        for d in range(draws):
            chosen = rng.choice(members, shots, replace=False)
            test = ~pool if split == "subject" else ~np.isin(np.arange(len(category)), chosen)
            anomalous = category[test] != name
            if anomalous.all() or not anomalous.any():
                raise ClipError(f"category '{name}' has no clips of the test subjects", fix="use --split random")
            auroc[d, g] = roc_auc_score(anomalous, distance(embedding[test], embedding[chosen]))
    low, high = np.percentile(auroc, [2.5, 97.5], 0)
    means = auroc.mean(1)
    return FewShot(
        shots,
        draws,
        split,
        seed,
        dict(zip(names, auroc.mean(0).round(5).tolist(), strict=True)),
        dict(zip(names, low.round(5).tolist(), strict=True)),
        dict(zip(names, high.round(5).tolist(), strict=True)),
        float(means.mean()),
        (float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))),
        len(category),
    )


def report_table(results: dict[str, FewShot], title: str) -> Table:
    """Categories down, methods across, the mean with its interval at the end."""
    table = Table("category", *results, title=title)
    first = next(iter(results.values()))
    for name in first.categories:
        cells = (f"{r.categories[name]:.4f}  [{r.low[name]:.3f} – {r.high[name]:.3f}]" for r in results.values())
        table.add_row(name, *cells)
    table.add_section()
    means = (f"{r.mean:.4f}  [{r.interval[0]:.4f} – {r.interval[1]:.4f}]" for r in results.values())
    table.add_row("mean", *means, style="bold")
    return table
