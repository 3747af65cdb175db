"""The accuracy gate: accepts a float16 graph only if its results agree with those of the float32 graph.

    float32 graph ─┬──────────────────────────► embedding, distance ─┐
                   └► to_half ─┬► as it runs ──► embedding, distance ─┼► Verdict ─► accepted, or what to keep
                               └► rounded ─────► embedding, distance ─┘

Both forms of the float16 graph are judged, and the worse counts. ONNX Runtime on a CPU computes much of a float16 graph
in float32, so how it runs there says too little about a device that computes in float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from builder.examples import Examples
from builder.islands import ISLANDS
from edge.errors import BundleError
from edge.skeleton import Float

COSINE, DISTANCE, AUROC = 0.999, 2e-3, 2e-3
"""The limits: the least cosine of any window, the greatest difference of any distance and of few-shot AUROC."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst over all windows: the least cosine and the greatest difference in distance; the difference in AUROC."""

    cosine: float
    distance: float
    auroc: float
    auroc_float32: float
    windows: int

    @property
    def failures(self) -> list[str]:
        """The limits that are exceeded, in words."""
        out = []
        if not np.isfinite([self.cosine, self.distance]).all():
            return ["float16 overflows, or a divisor becomes 0: for some windows the outputs are not numbers"]
        if not self.cosine >= COSINE:
            out.append(f"the cosine to the float32 embedding falls to {self.cosine:.5f}, at least {COSINE} is required")
        if not self.distance <= DISTANCE:
            out.append(f"distances differ by up to {self.distance:.2g}, at most {DISTANCE:g} is allowed")
        if not self.auroc <= AUROC:
            out.append(f"few-shot AUROC differs by {self.auroc:.4f}, at most {AUROC:g} is allowed")
        return out

    @property
    def strain(self) -> float:
        """How much of the tightest limit is used up: 1 at the limit, more beyond it; inf for NaN."""
        used = (1 - self.cosine) / (1 - COSINE), self.distance / DISTANCE, self.auroc / AUROC
        return max(used) if np.isfinite(used).all() else np.inf


@dataclass(frozen=True, slots=True)
class Output:
    """A graph's output for the examples: embedding (N, D), distance (N, G) to its own support embeddings."""

    embedding: Float
    distance: Float


def outputs(data: bytes, examples: Examples) -> Output:
    """Run a graph on the CPU, with support features that it computes itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # optimisations may remove casts
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    size = {i.name: i.shape for i in session.get_inputs()}["support"][-1]
    feed = {"joints": examples.joints, "visible": examples.visible}
    nothing = {"support": np.zeros((1, 1, size), np.float32), "support_mask": np.ones((1, 1), np.float32)}
    (embedding,) = session.run(["embedding"], feed | nothing)
    support = embedding[examples.support].reshape(examples.categories, -1, size)
    bound = {"support": support, "support_mask": np.ones(support.shape[:2], np.float32)}
    (distance,) = session.run(["distance"], feed | bound)
    return Output(embedding, distance)


def few_shot_auroc(distance: Float, examples: Examples) -> float:
    """How well distance (N, G) tells a category's windows from all others: mean AUROC over the categories.

    Support windows are left out. A category's AUROC is the share of pairs (own window, other window) in which the other
    lies farther away; a tie counts half.
    """
    judged = ~examples.support
    found = []
    for g in range(examples.categories):
        own = distance[judged & (examples.category == g), g]
        other = distance[judged & (examples.category != g), g]
        difference = other[:, None] - own
        found.append(((difference > 0) + 0.5 * (difference == 0)).mean() if np.isfinite(difference).all() else np.nan)
    return float(np.mean(found))


def compare(exact: Output, short: Output, examples: Examples) -> Verdict:
    """The verdict on `short`, a float16 output, against `exact`, the float32 graph's."""
    length = np.linalg.norm(exact.embedding, axis=1) * np.linalg.norm(short.embedding, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: NDArray[np.floating] = (exact.embedding * short.embedding).sum(1) / length
    before, after = (few_shot_auroc(x.distance, examples) for x in (exact, short))
    return Verdict(
        cosine=float(cosine.min()),
        distance=float(np.abs(exact.distance - short.distance).max()),
        auroc=abs(before - after),
        auroc_float32=before,
        windows=len(examples.joints),
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict with the greatest `strain`."""
    return max(verdicts, key=lambda v: v.strain)


def judge(exact: Output, typed: bytes, examples: Examples) -> Verdict:
    """The verdict on a typed float16 graph: the worse of as it runs here and with float16 rounding."""
    from builder.half import rounded

    return worst(compare(exact, outputs(form, examples), examples) for form in (rounded(typed), typed))


def what_to_keep(data: bytes, islands: Sequence[str], exact: Output, examples: Examples) -> list[str]:
    """The parts to keep in float32 so that the graph passes: the best single one, else a set that needs each of them.

    Overflow often takes two: the part that makes the large number and the one that reads it.
    """
    import onnx

    from builder.half import parts, to_half

    def verdict(extra: Sequence[str]) -> Verdict:
        return judge(exact, to_half(data, [*islands, *extra]), examples)

    candidates = parts(onnx.load_from_string(data), islands)
    tried = {p: verdict([p]) for p in candidates}
    if passing := [p for p in candidates if not tried[p].failures]:
        return [min(passing, key=lambda p: tried[p].strain)]
    kept = list(candidates)
    for p in candidates:
        without = [q for q in kept if q != p]
        if not verdict(without).failures:
            kept = without
    return kept


def accept(data: bytes, examples: Examples, islands: Sequence[str] = ISLANDS) -> tuple[bytes, Verdict]:
    """The typed float16 form of a graph, if it passes. Raises BundleError that says which parts to keep in float32."""
    from builder.half import to_half

    typed = to_half(data, islands)
    exact = outputs(data, examples)
    verdict = judge(exact, typed, examples)
    if verdict.failures:
        keep = what_to_keep(data, islands, exact, examples)
        raise BundleError(
            "the float16 graph fails the gate",
            why="; ".join(verdict.failures),
            fix="keep these parts in float32: build with " + " ".join(f"--float32 {p}" for p in keep),
        )
    return typed, verdict
