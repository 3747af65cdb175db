"""The accuracy gate: a float16 graph is taken only if it says what the float32 graph says.

    float32 graph ─┬──────────────────────────► embedding, distance ─┐
                   └► to_half ─┬► as it runs ──► embedding, distance ─┼► Verdict ─► taken, or which part to keep
                               └► rounded ─────► embedding, distance ─┘

Both forms of the float16 graph are judged and the worse counts: ONNX Runtime on a CPU computes much of a float16 graph
in float32, so the graph as it runs there says too little of a device that does not.
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
"""At least, of every window; at most, of every distance; at most, between the few-shot AUROC of the two."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst that was found over all windows: least cosine, greatest difference of a distance, loss of AUROC."""

    cosine: float
    distance: float
    auroc: float
    auroc_float32: float
    windows: int

    @property
    def failures(self) -> list[str]:
        """Which limits are broken, in words."""
        out = []
        if not np.isfinite([self.cosine, self.distance]).all():
            return ["float16 overflows or loses a divisor: for some windows the outputs are not numbers"]
        if not self.cosine >= COSINE:
            out.append(f"the cosine to the float32 embedding falls to {self.cosine:.5f}, {COSINE} is asked")
        if not self.distance <= DISTANCE:
            out.append(f"distances differ by up to {self.distance:.2g}, {DISTANCE:g} is allowed")
        if not self.auroc <= AUROC:
            out.append(f"few-shot AUROC differs by {self.auroc:.4f}, {AUROC:g} is allowed")
        return out

    @property
    def strain(self) -> float:
        """How much of the limits is used up: 1 at the limit that is nearest or most exceeded; inf for NaN."""
        used = (1 - self.cosine) / (1 - COSINE), self.distance / DISTANCE, self.auroc / AUROC
        return max(used) if np.isfinite(used).all() else np.inf


@dataclass(frozen=True, slots=True)
class Output:
    """What a graph makes of the examples: embedding (N, D), distance (N, G) to its own embeddings of the support."""

    embedding: Float
    distance: Float


def outputs(data: bytes, examples: Examples) -> Output:
    """Run a graph on the CPU as the device does: the support features are its own."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # which may take casts away
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
    """Mean over the categories: how well distance (N, G) tells a category's windows from all others'.

    Windows of the support are not judged. For each category the share of pairs in which the other window lies farther
    off than the category's own, a tie being half a pair.
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
    """The verdict on one output, against the float32 graph's."""
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
    """The verdict that strains the limits most."""
    return max(verdicts, key=lambda v: v.strain)


def judge(exact: Output, typed: bytes, examples: Examples) -> Verdict:
    """The verdict on a typed float16 graph: the worse of how it runs here and how float16 rounds."""
    from builder.half import rounded

    return worst(compare(exact, outputs(form, examples), examples) for form in (rounded(typed), typed))


def what_to_keep(data: bytes, islands: Sequence[str], exact: Output, examples: Examples) -> list[str]:
    """The parts that pass the gate when they are float32 too: the best one, or if one is not enough, a set of which
    none can be left out. Overflow often takes two: the part that makes the great number and the one that reads it.
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
    """The typed float16 graph of a float32 one, if it passes. Raises BundleError that says which part to keep."""
    from builder.half import to_half

    typed = to_half(data, islands)
    exact = outputs(data, examples)
    verdict = judge(exact, typed, examples)
    if verdict.failures:
        keep = what_to_keep(data, islands, exact, examples)
        raise BundleError(
            "the float16 graph is not accepted",
            why="; ".join(verdict.failures),
            fix="keep in float32, by building with " + " ".join(f"--float32 {p}" for p in keep),
        )
    return typed, verdict
