"""Which of a bundle's plans this machine can run, and of every other why not, in one line each.

Nothing of a plan is touched here but its record: its bytes are read, and their hash compared, when it has been chosen.
"""

from __future__ import annotations

import contextlib

from edge.bundle import Bundle
from edge.engine.machine import Machine
from edge.engine.record import PlanRecord, plan_names, plan_words, read_plan, stale
from edge.errors import BundleError, EngineError, NoPlan


def misfit(bundle: Bundle, record: PlanRecord, here: Machine) -> str:
    """Why a plan cannot run on this machine, or ''."""
    if here.problem or here.gpu is None or here.tensorrt is None:
        return here.problem or "no GPU"
    if why := stale(bundle, record):
        return why
    if record.compute_capability != here.gpu.capability:
        return (
            f"built for compute capability {record.compute_capability} ({record.gpu}), "
            f"this GPU has {here.gpu.capability} ({here.gpu.name})"
        )
    if record.machine != here.platform:
        return f"built on {record.machine}, this is {here.platform}"
    if record.tensorrt != here.tensorrt:
        if not record.version_compatible:
            return f"built by TensorRT {record.tensorrt}, here is {here.tensorrt}, and a plan runs in its own alone"
        if not _reaches(record.tensorrt, here.tensorrt):
            return f"built by TensorRT {record.tensorrt}, version-compatible, which {here.tensorrt} is not in reach of"
    if _numbers(here.gpu.driver)[0] < _numbers(record.cuda)[0]:
        return f"built with CUDA {record.cuda}, the driver here serves up to {here.gpu.driver}"
    return ""


def _reaches(built: str, here: str) -> bool:
    """A version-compatible plan runs in later versions: of its own major one, and of the next that there was."""
    a, b = _numbers(built), _numbers(here)
    return b >= a and (a[0] == b[0] or (a[0], b[0]) in {(8, 10), (10, 11)})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in version.split("."))


def fitting(bundle: Bundle, here: Machine) -> tuple[list[PlanRecord], dict[str, str]]:
    """The plans that can run here, the best first, and of the others why not.

    Best: of this very TensorRT version before a version-compatible one, then float16 before float32.
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
    """What `haad-edge` is given to build the plan that is missing here, with the options of the one that comes nearest.

    That is one of this kind of GPU, by another TensorRT or of another graph; then one of any other.
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


def choose(bundle: Bundle, here: Machine) -> PlanRecord:
    """The best plan for this machine. Raises EngineError where it cannot run one at all, and NoPlan that says why there
    is none and how to get one.
    """
    if here.problem:
        fix = "see that nvidia-smi lists one (on a Jetson: tegrastats); or engine: onnx"
        if here.gpu is not None:
            fix = "docs/jetson.md says how it is installed, and what else may be wrong; or engine: onnx"
        raise EngineError("the engine 'tensorrt' cannot run here", why=here.problem, fix=fix)
    fit, unfit = fitting(bundle, here)
    if not fit:
        why = "; ".join(f"{target}: {reason}" for target, reason in unfit.items())
        raise NoPlan(
            f"{bundle.root}: no plan for this machine",
            why=why or "none was built",
            fix=f"{' '.join(['haad-edge', *missing(bundle, here)])}, or run with --build-missing",
        )
    return fit[0]
