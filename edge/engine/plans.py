"""Chooses the plan of a bundle that this machine runs best, and says in one line why each other plan cannot run.

A plan is chosen by its record. Only then are its bytes read and their hash compared: what is damaged does not fit.
"""

from __future__ import annotations

import contextlib

from edge.bundle import Bundle
from edge.engine.machine import Machine
from edge.engine.record import FOLDER, PlanRecord, plan_names, plan_words, read_plan, stale
from edge.errors import BundleError, EngineError, NoPlan, command


def misfit(bundle: Bundle, record: PlanRecord, here: Machine) -> str:
    """Why a plan cannot run on this machine, or ''."""
    if here.problem or here.gpu is None or here.tensorrt is None:
        return here.problem or "no GPU"
    if why := stale(bundle, record):
        return why
    if record.compute_capability != here.gpu.capability:
        return (
            f"built for compute capability {record.compute_capability} ({record.gpu}), "
            f"but this GPU has {here.gpu.capability} ({here.gpu.name})"
        )
    if record.machine != here.platform:
        return f"built on {record.machine}, but this is {here.platform}"
    if record.tensorrt != here.tensorrt:
        if not record.version_compatible:
            return (
                f"built by TensorRT {record.tensorrt}, but here is {here.tensorrt}: a plan runs only in its own version"
            )
        if not _reaches(record.tensorrt, here.tensorrt):
            return f"built by TensorRT {record.tensorrt}, version-compatible, but not with {here.tensorrt}"
    if _numbers(here.gpu.driver)[0] < _numbers(record.cuda)[0]:
        return f"built with CUDA {record.cuda}, but the driver here supports only up to {here.gpu.driver}"
    return ""


def _reaches(built: str, here: str) -> bool:
    """Whether a version-compatible plan runs in `here`: a later version of the same major release, or of the next."""
    a, b = _numbers(built), _numbers(here)
    return b >= a and (a[0] == b[0] or (a[0], b[0]) in {(8, 10), (10, 11)})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in version.split("."))


def fitting(bundle: Bundle, here: Machine) -> tuple[list[PlanRecord], dict[str, str]]:
    """The plans that can run here, best first, and for each other target why its plan cannot.

    Best: built by this TensorRT version before version-compatible, then float16 before float32.
    """
    fit, unfit = [], {}
    for target in plan_names(bundle):
        try:
            record = read_plan(bundle, target)
        except BundleError as e:
            unfit[target] = e.what + (f": {e.why}" if e.why else "")
            continue
        if why := misfit(bundle, record, here):
            unfit[target] = why
        else:
            fit.append(record)
    fit.sort(key=lambda r: (r.tensorrt != here.tensorrt, r.precision != "fp16", r.target))
    return fit, unfit


def missing(bundle: Bundle, here: Machine) -> list[str]:
    """The arguments of `haad-edge` that build the plan missing here, with the options of the most similar plan.

    Most similar: one for this kind of GPU, from another TensorRT or another graph; else one for any other GPU.
    """
    known = []
    for target in plan_names(bundle):
        with contextlib.suppress(BundleError):
            known.append(read_plan(bundle, target))
    if not known:
        return plan_words(bundle, "fp16", [])
    capability = here.gpu.capability if here.gpu else ""
    nearest = min(known, key=lambda r: (r.compute_capability != capability, r.precision != "fp16", r.target))
    return plan_words(bundle, nearest.precision, nearest.asked)


def choose(bundle: Bundle, here: Machine) -> tuple[PlanRecord, bytes]:
    """The best whole plan for this machine: its record, and the plan itself.

    Raises EngineError if it cannot run plans at all; NoPlan, saying why and how to get one, if no plan fits.
    """
    if here.problem:
        fix = "see that nvidia-smi lists a GPU (on a Jetson: tegrastats); or set engine: onnx"
        if here.gpu is not None:
            fix = "docs/jetson.md says how to install it, and what else may be wrong; or set engine: onnx"
        raise EngineError("the engine 'tensorrt' cannot run here", why=here.problem, fix=fix)
    fit, unfit = fitting(bundle, here)
    for record in fit:
        try:
            return record, bundle.read(f"{FOLDER}/{record.target}/{record.file}")
        except BundleError as e:
            unfit[record.target] = e.what + (f": {e.why}" if e.why else "")
    why = "; ".join(f"{target}: {reason}" for target, reason in unfit.items())
    raise NoPlan(
        f"{bundle.root}: no plan for this machine",
        why=why or "none was built",
        fix=f"{command(*missing(bundle, here))}, or run with --build-missing",
    )
