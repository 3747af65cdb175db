"""Measures few-shot accuracy: how well K clips of a category tell it from all others.

protocol (who is support, who is judged) ─► episodes (category, draw, distances) ─┬─► AUROC with intervals
                                                                                  ├─► ROC curves
                                                                                  └─► confusions of categories
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edge.errors import ClipError
from edge.score import match
from edge.skeleton import Float
from trainer.protocols import Protocol, at_random, by_subject

Distance = Callable[[Float, Float], NDArray[np.floating]]


def mean_cosine(judged: Float, support: Float) -> NDArray[np.floating]:
    """The mean cosine distance of each whole clip (M, D) to the clips of the support (K, D): (M,).

    As published (arXiv 2508.17726), with one embedding per clip. The graph's own match, which weights the nearest more,
    is for windows: a clip has many, and few of them are at the phase of the window judged.
    """
    return np.asarray(1 - judged @ support.mean(0))


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over categories, and the two values between which it lies in 95 % of the support draws."""

    mean: float
    low: float
    high: float
    categories: int


@dataclass(frozen=True, slots=True)
class FewShot:
    """AUROC per category, its mean over categories and the 95 % interval of that mean over support draws.

    `left_out` holds the categories that cannot be measured with this number of shots, each with the reason. `parts`
    holds the means over seen and over unseen categories, where the protocol distinguishes them.
    """

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
    left_out: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Mean] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Episode:
    """One draw for one category: its support clips (K,), the clips judged (M,), and their distances (M,)."""

    category: str
    support: NDArray[np.intp]
    judged: NDArray[np.intp]
    anomalous: NDArray[np.bool_]
    distance: NDArray[np.floating]


def impossible(category: NDArray[np.str_], protocol: Protocol, shots: int) -> dict[str, str]:
    """Return the categories that cannot be measured, each with the reason."""
    out = {}
    for name in sorted(set(category.tolist())):
        mine = category == name
        members, judged = int((protocol.pool & mine).sum()), int((protocol.test & mine).sum())
        if members < shots:
            out[name] = f"it has {members} clips to draw a support of {shots} from"
        elif not judged:
            out[name] = (
                "it has no clips of the test subjects" if protocol.name == "subject" else "none of its clips is judged"
            )
        elif not (protocol.test & mine & ~protocol.pool).any() and members <= shots:
            out[name] = f"it has {members} clips; with {shots} of them as support, none is left to judge"
    return out


def remedy(names: Iterable[str], category: NDArray[np.str_], protocol: Protocol) -> str:
    """What to do if these categories cannot be measured; suggests a lower --shots only if that helps one of them."""
    never = impossible(category, protocol, 1)
    return "lower --shots, or " * any(name not in never for name in names) + protocol.fix


def episodes(
    embedding: Float,
    category: NDArray[np.str_],
    protocol: Protocol,
    *,
    shots: int,
    draws: int,
    seed: int,
    distance: Distance,
) -> Iterator[Episode]:
    """Yield every draw of every category that can be measured, by category; the same draws for every embedding.

    Raises ClipError for fewer than two categories, if no clip of another category is judged, or if a distance is not
    finite.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(category.tolist()))
    if len(names) < 2:
        raise ClipError("evaluation needs two categories or more", why=f"found {names}")
    unmeasurable = impossible(category, protocol, shots)
    for name in names:
        if name in unmeasurable:
            continue
        members = np.flatnonzero(protocol.pool & (category == name))
        for _ in range(draws):
            chosen = rng.choice(members, shots, replace=False)
            free = protocol.test.copy()
            free[chosen] = False
            judged = np.flatnonzero(free)
            anomalous = category[judged] != name
            if not anomalous.any():
                raise ClipError(
                    f"no clip of any category other than '{name}' is judged", fix="add clips of other categories"
                )
            found = distance(embedding[judged], embedding[chosen])
            if not np.isfinite(found).all():
                raise ClipError(
                    f"the distances to '{name}' are not all finite",
                    why="the model's training has diverged, or a clip has absurd coordinates",
                    fix="look at the clips with haad-edge embed, or train with another seed",
                )
            yield Episode(name, chosen, judged, anomalous, found)


def auroc(normal: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The share of pairs in which the other clip is at a greater distance than the normal one; a tie counts half."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, other, "left") + np.searchsorted(ordered, other, "right")
    return float(below.mean() / (2 * len(ordered)))


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
    protocol: Protocol | None = None,
    strict: bool = True,
) -> FewShot:
    """For every category: draw `shots` support clips, score all judged clips by distance, take the AUROC.

    embedding (N, D); `distance` maps judged rows (M, D) and support rows (shots, D) to (M,). Without a `protocol`,
    `split='subject'` takes support from every other subject and judges the rest; `'random'` takes support from anywhere
    and judges all other clips. Normal is the negative class. Raises ClipError for a category with too few clips; with
    `strict=False` such a category is left out with the reason, and ClipError is raised only if none is left.
    """
    if protocol is None:
        protocol = by_subject(subject) if split == "subject" else at_random(len(category))
    unmeasurable = impossible(category, protocol, shots)
    if unmeasurable and (strict or len(unmeasurable) == len(set(category.tolist()))):
        never = impossible(category, protocol, 1)
        # Name one that fewer shots would help, if there is one.
        name = next((n for n in unmeasurable if n not in never), next(iter(unmeasurable)))
        fix = remedy([name], category, protocol)
        raise ClipError(f"category '{name}' cannot be measured", why=unmeasurable[name], fix=fix)
    found: dict[str, list[float]] = {}
    for e in episodes(embedding, category, protocol, shots=shots, draws=draws, seed=seed, distance=distance):
        found.setdefault(e.category, []).append(auroc(e.distance[~e.anomalous], e.distance[e.anomalous]))
    names = list(found)
    figures = np.array([found[name] for name in names]).T
    low, high = np.percentile(figures, [2.5, 97.5], 0)
    whole = mean_of(figures)
    parts = {}
    if protocol.seen is not None:
        known = np.isin(names, sorted(set(category[protocol.seen].tolist())))
        parts = {k: mean_of(figures[:, m]) for k, m in (("seen", known), ("unseen", ~known)) if m.any()}
    return FewShot(
        shots,
        draws,
        protocol.name,
        seed,
        dict(zip(names, figures.mean(0).round(5).tolist(), strict=True)),
        dict(zip(names, low.round(5).tolist(), strict=True)),
        dict(zip(names, high.round(5).tolist(), strict=True)),
        whole.mean,
        (whole.low, whole.high),
        len(category),
        unmeasurable,
        parts,
    )


def mean_of(figures: NDArray[np.floating]) -> Mean:
    """The mean of figures (draws, categories), with its 95 % interval over the draws."""
    means = figures.mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(means.mean()), float(low), float(high), figures.shape[1])


@dataclass(frozen=True, slots=True)
class Method:
    """A method to compare: its embedding of every clip (N, D), and the distance that goes with it."""

    name: str
    embedding: Float
    distance: Distance


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of one run: results[shots][method].

    `impossible` holds the numbers of shots with which no category can be measured, each with the reason.
    `episodes[method]` are the draws with `main` shots, which the pictures show.
    """

    protocol: Protocol
    methods: list[Method]
    results: dict[int, dict[str, FewShot]]
    impossible: dict[int, str]
    main: int
    episodes: dict[str, list[Episode]]
    unseen: set[str]


def evaluate(
    methods: Sequence[Method],
    category: NDArray[np.str_],
    subject: NDArray[np.str_],
    protocol: Protocol,
    *,
    shots: Sequence[int],
    draws: int,
    seed: int,
) -> Evaluation:
    """Measure every method with every number of shots, all on the same draws.

    Raises ClipError if no number of shots is possible.
    """
    names = sorted(set(category.tolist()))
    results: dict[int, dict[str, FewShot]] = {}
    impossible_shots: dict[int, str] = {}
    for k in shots:
        if len(shots) > 1 and len(impossible(category, protocol, k)) == len(names):
            most = max(int((protocol.pool & (category == name)).sum()) for name in names)
            impossible_shots[k] = (
                "no category has enough clips to draw such a support from, and others to judge; "
                f"the largest has {most} to draw from"
            )
            continue
        results[k] = {
            m.name: few_shot(
                m.embedding,
                category,
                subject,
                shots=k,
                draws=draws,
                seed=seed,
                distance=m.distance,
                protocol=protocol,
                strict=False,
            )
            for m in methods
        }
    if not results:
        fix = remedy(names, category, protocol)
        raise ClipError("no category can be measured", why=next(iter(impossible_shots.values())), fix=fix)
    main = 3 if 3 in results else min(results)
    found = {
        m.name: list(episodes(m.embedding, category, protocol, shots=main, draws=draws, seed=seed, distance=m.distance))
        for m in methods
    }
    unseen = set() if protocol.seen is None else set(category.tolist()) - set(category[protocol.seen].tolist())
    return Evaluation(protocol, list(methods), results, impossible_shots, main, found, unseen)


def as_json(found: Evaluation) -> dict[str, object]:
    """The figures for a file: at the top level those of the first method with `main` shots, in `runs` all of them."""
    p = found.protocol
    main = list(found.results[found.main].values())
    out: dict[str, object] = dict(main[0].as_dict())
    for m, r in zip(found.methods[1:], main[1:], strict=True):
        out[m.name.split(":")[0].removeprefix("recipe ")] = r.as_dict()
    out["protocol"] = {
        "name": p.name,
        "about": p.about,
        "support_clips": int(p.pool.sum()),
        "judged_clips": int(p.test.sum()),
        "unseen": sorted(found.unseen),
    }
    out["runs"] = [{"method": name, **r.as_dict()} for rs in found.results.values() for name, r in rs.items()]
    out["impossible"] = {str(k): why for k, why in found.impossible.items()}
    return out


def report_table(results: Mapping[str, FewShot], title: str) -> Table:
    """A table of categories (rows) and methods (columns), with the means and their intervals at the end."""
    table = Table("category", *results, title=title)
    first = next(iter(results.values()))
    for name in first.categories:
        cells = (f"{r.categories[name]:.4f}  [{r.low[name]:.3f} – {r.high[name]:.3f}]" for r in results.values())
        table.add_row(name, *cells)
    for name in first.left_out:
        table.add_row(name, *["–"] * len(results))
    table.add_section()
    add_means(table, results, "mean")
    return table


def shots_table(found: Evaluation, title: str) -> Table:
    """A table of the means alone: numbers of shots (rows) and methods (columns)."""
    table = Table("shots", *[m.name for m in found.methods], title=title)
    for k, results in found.results.items():
        add_means(table, results, str(k))
    return table


def add_means(table: Table, results: Mapping[str, FewShot], label: str) -> None:
    """Add the rows of the means over seen, unseen and all categories."""
    first = next(iter(results.values()))
    for part in first.parts:
        parts = (r.parts[part] for r in results.values())
        table.add_row(f"{label}, {part}", *(f"{p.mean:.4f}  [{p.low:.4f} – {p.high:.4f}]" for p in parts))
    means = (f"{r.mean:.4f}  [{r.interval[0]:.4f} – {r.interval[1]:.4f}]" for r in results.values())
    table.add_row(label, *means, style="bold")
