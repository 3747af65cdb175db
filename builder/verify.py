"""Checks that a bundle is whole, and computes here what it computed where it was built (`haad-edge verify`).

    hashes ─► graph and lists ─► runs here: unit length, the match in numpy, one by one ─► torch ─► engines

A check that could not be made says so; without torch or onnx, what needs them is left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from builder.examples import example_windows
from builder.inspect import files, graph, intact
from edge.bundle import GRAPH, WEIGHTS, Bundle
from edge.commands.doctor import Finding
from edge.engine import Engine, open_engine, run_all
from edge.engine.machine import this_machine
from edge.engine.plans import misfit
from edge.engine.record import FOLDER, PLANS, engine_names, read_plan, read_record, rebuild_command, stale
from edge.errors import HaadError, command
from edge.score import level_of, margin_of, match, threshold_of
from edge.skeleton import Float

if TYPE_CHECKING:
    from builder.gate import Verdict

TOLERANCE = 1e-4
"""The greatest difference allowed between ONNX Runtime and numpy, and between batch sizes."""


def verify(bundle: Bundle) -> list[Finding]:
    """All findings, in reading order. A verdict of 'broken' means that the bundle should not be run here."""
    out = files(bundle)
    out += _manifest(bundle)
    out.append(
        Finding("signature", "absent", "none: this version does not sign bundles, and hashes guard only against damage")
    )
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [("calibration", lambda: _calibration(bundle))]
    data = intact(bundle, GRAPH)
    if data is None:
        fix = command("build", bundle.root, "--target", "onnx")
        out.append(Finding("graph", "broken", "missing or damaged, so it was not run", fix))
    else:
        checks += [("operations", lambda: _lists(data)), ("runs here", lambda: _runs(bundle))]
        if intact(bundle, WEIGHTS) is not None:
            checks.append(("parity with torch", lambda: _torch(bundle, data)))
        checks += [(f"engine {n}", lambda n=n: _engine(bundle, data, n)) for n in engine_names(bundle)]  # type: ignore[misc]
    for name, check in checks:
        try:
            found = check()
        except HaadError as e:
            found = [Finding(name, "broken", e.what + (f": {e.why}" if e.why else ""), e.fix)]
        out += found
        if name == "runs here" and found[0].verdict == "broken":
            break  # comparisons with it would only report the same again
    return out


def _manifest(bundle: Bundle) -> list[Finding]:
    """Whether values that the manifest holds twice agree."""
    m = bundle.manifest
    wrong = [
        f"{name} is {getattr(m, name)}, but {there} in the architecture"
        for name in ("frames", "seconds", "embedding", "temperature")
        if (there := m.architecture.get(name, getattr(m, name))) != getattr(m, name)
    ]
    fix = "copy the whole bundle again"
    return [Finding("manifest", "broken", "; ".join(wrong), fix)] if wrong else []


def _calibration(bundle: Bundle) -> list[Finding]:
    """Whether `run` can compute levels (for several clips and for one), margins and thresholds from it."""
    m, name, fix = bundle.manifest, "calibration", "train the bundle again, or python -m benchmarks.recalibrate"
    found = bundle.calibration()
    rows = np.eye(4, m.embedding, dtype=np.float32)
    try:
        values = [level_of(clips, found, m.temperature) for clips in ([rows[:2], rows[2:]], [rows])]
        values += [margin_of(3, found), threshold_of(found, "high")]
    except (KeyError, ValueError, IndexError, TypeError) as e:
        return [Finding(name, "broken", f"cannot be used: {type(e).__name__}: {e}", fix)]
    if not np.isfinite(values).all():
        return [Finding(name, "broken", "the limits computed from it are not numbers", fix)]
    return [Finding(name, "ok", f"{len(found['cohort'])} embeddings in the cohort, and the constants of the score")]


def _lists(data: bytes) -> list[Finding]:
    """Findings on the float32 graph, which the parser of every version must read."""
    return [Finding(f.name, "broken", f.detail) if "parser" in f.name and f.verdict != "ok" else f for f in graph(data)]


def _support(embedding: Float) -> tuple[Float, Float]:
    """A support set and mask from embeddings: categories of 16, 5 and 1, padded with rows that must not count."""
    mask = (np.arange(16) < np.array([[16], [5], [1]])).astype(np.float32)
    return embedding[: 3 * 16].reshape(3, 16, -1), mask


def _runs(bundle: Bundle) -> list[Finding]:
    m = bundle.manifest
    joints, visible = example_windows(m.frames, m.seconds)
    engine: Engine = open_engine(bundle, max_batch=64)
    embedding, _ = run_all(engine, joints, visible)
    support, mask = _support(embedding)
    engine.bind(support, mask)
    embedding, distance = run_all(engine, joints, visible)
    kept = [s[k > 0] for s, k in zip(support, mask, strict=True)]
    expected = np.stack([match(embedding, s, m.temperature) for s in kept], 1)
    some = slice(None, None, 10)
    one = [run_all(engine, j[None], v[None]) for j, v in zip(joints[some], visible[some], strict=True)]
    differences = {
        "unit length": float(np.abs(np.linalg.norm(embedding.astype(np.float64), axis=1) - 1).max()),
        "the match in numpy": float(np.abs(distance - expected).max()),
        "one by one": max(
            float(np.abs(np.concatenate([x[i] for x in one]) - whole[some]).max())
            for i, whole in enumerate((embedding, distance))
        ),
    }
    name, text = "runs here", ", ".join(f"{k} {v:.1e}" for k, v in differences.items())
    detail = f"{engine.name} on {len(joints)} windows, differences: {text}"
    if not all(v <= TOLERANCE for v in differences.values()):  # so that NaN fails too
        return [
            Finding(name, "broken", detail, f"at most {TOLERANCE:g} is allowed; try another version of onnxruntime")
        ]
    return [Finding(name, "ok", detail)]


def _torch(bundle: Bundle, data: bytes) -> list[Finding]:
    name = "parity with torch"
    if missing := _missing("torch", "onnx", "safetensors"):
        return [
            Finding(name, "absent", f"not compared: no {missing} here", "on a workstation: haad-edge verify BUNDLE")
        ]
    from builder.export import TOLERANCE, load_graph, parity

    m = bundle.manifest
    found = parity(load_graph(bundle), data, example_windows(m.frames, m.seconds))
    detail = f"{found['against']}: embedding {found['embedding']:.1e}, distance {found['distance']:.1e}"
    if not (found["embedding"] <= TOLERANCE and found["distance"] <= TOLERANCE):
        return [Finding(name, "broken", detail, command("build", bundle.root, "--target", "onnx"))]
    return [Finding(name, "ok", detail)]


def _plan(bundle: Bundle, data: bytes, target: str) -> list[Finding]:
    """Whether a plan belongs to the graph beside it and, if this machine can run it, passes the gate here."""
    name = f"engine {target}"
    record = read_plan(bundle, target)
    if why := stale(bundle, record):
        return [Finding(name, "broken", why, rebuild_command(bundle, target, record.asked))]
    plan = bundle.read(f"{FOLDER}/{target}/{record.file}")
    if why := misfit(bundle, record, this_machine()):
        return [Finding(name, "absent", f"belongs to the graph; not run: {why}")]
    from builder.compile import fit_examples, judge_engine
    from builder.examples import gate_examples
    from builder.gate import outputs
    from edge.engine.tensorrt import open_plan

    m = bundle.manifest
    examples = fit_examples(gate_examples(m.frames, m.seconds), record.profile.shots[2])
    engine = open_plan(bundle, record, plan, max_batch=record.profile.batch[2])
    try:
        verdict, _ = judge_engine(engine, outputs(data, examples), examples, record.profile)
    finally:
        engine.close()
    return [_judged(name, verdict, rebuild_command(bundle, target, record.asked))]


def _judged(name: str, verdict: Verdict, fix: str) -> Finding:
    detail = f"cosine ≥ {verdict.cosine:.6f}, distance within {verdict.distance:.1e}, AUROC within {verdict.auroc:.1e}"
    if verdict.failures:
        return Finding(name, "broken", "; ".join(verdict.failures), fix)
    return Finding(name, "ok", detail)


def _engine(bundle: Bundle, data: bytes, target: str) -> list[Finding]:
    """Whether an engine belongs to the graph beside it, and passes the gate on this machine."""
    name = f"engine {target}"
    if target.startswith(PLANS):
        return _plan(bundle, data, target)
    record = read_record(bundle, target)
    anew = rebuild_command(bundle, target, record.asked)
    if why := stale(bundle, record):
        return [Finding(name, "broken", why, anew)]
    typed = bundle.read(f"{FOLDER}/{target}/{record.file}")
    if missing := _missing("onnx"):
        return [Finding(name, "absent", f"belongs to the graph; not run through the gate: no {missing} here")]
    from builder.examples import gate_examples
    from builder.gate import judge, outputs

    examples = gate_examples(bundle.manifest.frames, bundle.manifest.seconds)
    try:
        verdict = judge(outputs(data, examples), typed, examples)
    except Exception as e:  # its hash matched, so it was built like this; ONNX and its runtime have errors of their own
        return [Finding(name, "broken", f"cannot be run: {e!s:.300}", anew)]
    return [_judged(name, verdict, anew)]


def _missing(*modules: str) -> str:
    return ", ".join(m for m in modules if importlib.util.find_spec(m) is None)
