"""Builds a TensorRT plan for this machine's GPU (`build --target tensorrt`), and writes it if it passes the gate.

encoder.onnx ─► (typed float16) ─► TensorRT ─► plan ─► run here, as on the device ─► gate ─► engines/<target>/
                                                                ▲
                                   ONNX Runtime, float32 ───────┘
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from builder.examples import Examples, gate_examples
from builder.gate import AUROC, COSINE, DISTANCE, Output, Verdict, compare, outputs, worst
from builder.islands import ISLANDS
from builder.profile import WORKSPACE, as_range, parse_profile, shapes
from builder.ways import TOGETHER, Judged, Way, best, ways
from edge.bundle import GRAPH, Bundle, add_to_bundle
from edge.engine import Engine, run_all
from edge.engine.machine import Gpu, Machine, this_machine
from edge.engine.places import buckets
from edge.engine.record import FOLDER, PLANS, RECORD, Gate, PlanRecord, Profile
from edge.engine.tensorrt import INPUTS, OUTPUTS, name_of, open_plan
from edge.errors import BundleError, EngineError, MissingExtra, OutputError, command
from edge.outputs import ready_file, ready_folder
from edge.skeleton import Float, J

RUNS = 300


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user asked for. `workspace` in MiB; `float32`: parts to keep in float32 besides the islands."""

    precision: str
    profile: Profile
    float32: Sequence[str] = ()
    workspace: int = WORKSPACE
    timing_cache: Path | None = None
    version_compatible: bool = False

    def cli_options(self) -> list[str]:
        """The same as options of `haad-edge build`: those not at their defaults, without --precision and files."""
        usual, p, out = parse_profile(), self.profile, list[str]()
        if p.batch != usual.batch:
            out += ["--batch", as_range(p.batch)]
        if (p.categories, p.shots) != (usual.categories, usual.shots):
            out += ["--support", f"{as_range(p.categories)}x{as_range(p.shots)}"]
        if self.workspace != WORKSPACE:
            out += ["--workspace", str(self.workspace)]
        for part in self.float32:
            out += ["--float32", part]
        return out + ["--version-compatible"] * self.version_compatible


def require_tensorrt(here: Machine) -> tuple[Gpu, str]:
    """The GPU and TensorRT's version. Raises EngineError, saying what to install, if one of them is missing."""
    if here.gpu is None:
        raise EngineError(
            "no plan can be built here",
            why=here.problem,
            fix="build on the machine that will run the plan: a plan fits only its GPU and its TensorRT",
        )
    if here.tensorrt is None or not here.pycuda:
        raise EngineError(
            "no plan can be built here",
            why=here.problem,
            fix="pip install 'haad-edge[tensorrt]'; on a Jetson see docs/jetson.md: TensorRT comes with JetPack",
        )
    return here.gpu, here.tensorrt


def check_writable(root: Path, below: str = FOLDER) -> None:
    """Raise OutputError unless files can be written into a bundle's folder, and into one below it."""
    try:
        for folder in (root, root / below):
            ready_folder(folder)
    except OutputError as e:
        copy = f"cp -r {shlex.quote(str(root))} COPY, then build in COPY"
        raise OutputError(e.what, why=e.why, fix=copy) from None


def build_tensorrt(
    bundle: Bundle, options: PlanOptions, tell: Callable[[str], None] = lambda text: None
) -> tuple[Bundle, PlanRecord]:
    """Build a plan, run it through the gate and write it. The bundle must hold encoder.onnx. Raises HaadError."""
    from builder.plan import PlanSpec, is_typed, make_plan
    from edge.engine.cuda import CudaDevice

    gpu, version = require_tensorrt(this_machine())
    target = f"{PLANS}{version}-sm{gpu.capability.replace('.', '')}-{options.precision}"
    check_writable(bundle.root, f"{FOLDER}/{target}")
    if (timings := options.timing_cache) is not None:
        ready_file(timings, "--timing-cache")
        if timings.exists() and not timings.is_file():
            raise OutputError(f"{timings}: it is not a file", fix="name another: --timing-cache PATH")
    tell(f"compiling for {gpu.name} with TensorRT {version}, which tries many kernels: this takes a while …")
    start = time.perf_counter()
    m, data = bundle.manifest, bundle.read(GRAPH)
    half, typed = options.precision == "fp16", is_typed()
    several = importlib.util.find_spec("onnx") is not None
    if several:
        from builder.operations import check_export
        from builder.together import can_widen

        check_export(data)
        several = can_widen(data)
    if not several and options.profile.batch[2] >= TOGETHER:
        tell(
            "building for single windows only: eight at once may be faster, but need the package onnx and a graph of "
            f"this version ({command('build', bundle.root, '--target', 'onnx')})"
        )
    islands = list(dict.fromkeys((*ISLANDS, *options.float32))) if half else []
    examples = fit_examples(gate_examples(m.frames, m.seconds), options.profile.shots[2])
    exact = outputs(data, examples)
    draft = PlanRecord(
        target=target,
        precision="fp16" if half else "fp32",
        sha256="",
        graph=m.files[GRAPH],
        model=bundle.model,
        opset=m.opset or 0,
        islands=islands,
        typed=typed,
        inputs=free_shapes(m.frames, m.embedding, INPUTS),
        outputs=free_shapes(m.frames, m.embedding, OUTPUTS),
        profile=options.profile,
        tensorrt=version,
        version_compatible=options.version_compatible,
        cuda="",
        driver=gpu.driver,
        driver_release=gpu.release,
        gpu=gpu.name,
        compute_capability=gpu.capability,
        machine=this_machine().platform,
        workspace_mib=options.workspace,
        parity={},
        gate=Gate(cosine=0, distance=0, auroc=0, auroc_float32=0, windows=0, limits={}),
        build_seconds=0,
        latency_ms={},
    )
    device = CudaDevice()  # before TensorRT, which uses its context

    def drafted(way: Way) -> PlanRecord:
        return draft.model_copy(update={"profile": way.profile(options.profile), "together": way.together})

    def compiled(way: Way, extra: Sequence[str] = ()) -> bytes:
        kept = [*islands, *extra]
        graph = data
        if way.together > 1:
            from builder.together import widened

            graph = widened(data, way.together)
        spec = PlanSpec(
            name=name_of(m.files[GRAPH]),
            shapes=shapes(way.profile(options.profile), m.frames, J, m.embedding),
            half=half,
            islands=kept,
            workspace=options.workspace << 20,
            timing_cache=options.timing_cache,
            version_compatible=options.version_compatible,
            request_half=way.request_half,
        )
        return make_plan(typed_graph(graph, kept) if half and typed else graph, spec)

    def judged(way: Way, plan: bytes) -> Judged:
        engine = open_plan(bundle, drafted(way), plan, max_batch=options.profile.batch[2], device=CudaDevice())
        try:
            verdict, short = judge_engine(engine, exact, examples, options.profile)
            return verdict, short, latency(engine, options.profile) if not verdict.failures else {}
        finally:
            engine.close()

    try:
        tries = ways(options.profile, several, half and not typed)
        way, plan, (verdict, short, times) = best(tries, compiled, judged, options.profile)
        if verdict.failures:

            def passes(extra: Sequence[str]) -> bool:
                try:
                    return not judged(way, compiled(way, extra))[0].failures
                except EngineError as e:
                    if e.lost:
                        raise
                    return False  # what cannot be built does not pass

            raise gate_error(verdict, half, data, islands, exact, examples, passes)
        record = drafted(way).model_copy(
            update={
                "sha256": hashlib.sha256(plan).hexdigest(),
                "cuda": device.toolkit,
                "asked": options.cli_options(),
                "parity": differences(exact, short),
                "gate": Gate(**asdict(verdict), limits={"cosine": COSINE, "distance": DISTANCE, "auroc": AUROC}),
                "latency_ms": times,
                "build_seconds": round(time.perf_counter() - start, 2),
            }
        )
    finally:
        with contextlib.suppress(EngineError):  # if the device was lost, the first error says why
            device.close()
    root = f"{FOLDER}/{record.target}"
    text = record.model_dump_json(indent=2) + "\n"
    files = {f"{root}/{record.file}": plan, f"{root}/{RECORD}": text.encode()}
    return add_to_bundle(bundle, files, made_of=GRAPH), record


def typed_graph(data: bytes, islands: Sequence[str]) -> bytes:
    """The typed float16 graph, checked. Raises MissingExtra without the package onnx, BundleError for unknown parts."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtra(
            "a float16 plan needs the package onnx here",
            why="from TensorRT 10 on, precision is written into the graph, which takes that package",
            fix="pip install onnx, or --precision fp32",
        )
    import onnx

    from builder.half import parts, to_half
    from builder.operations import TYPED, check_graph

    model = onnx.load_from_string(data)
    if unknown := [p for p in islands if not p or not any(n.name.startswith(p) for n in model.graph.node)]:
        old = unknown[0] in ISLANDS  # not named by the user
        raise BundleError(
            f"no operation of the graph has a name that begins with {unknown[0]!r}",
            why="another version of haad-edge exported the graph" if old else "",
            fix="haad-edge build BUNDLE --target onnx, then build the plan again"
            if old
            else f"use one of: {' '.join(parts(model, ISLANDS))}",
        )
    typed = to_half(data, islands)
    check_graph(onnx.load_from_string(typed), TYPED)
    return typed


def free_shapes(frames: int, embedding: int, names: Sequence[str]) -> dict[str, list[int]]:
    """The shapes of inputs or outputs as TensorRT gives them: −1 for a free axis."""
    known = {
        "joints": [-1, frames, J, 3],
        "visible": [-1, frames, J],
        "support": [-1, -1, embedding],
        "support_mask": [-1, -1],
        "embedding": [-1, embedding],
        "distance": [-1, -1],
    }
    return {name: known[name] for name in names}


def fit_examples(examples: Examples, shots: int) -> Examples:
    """The same examples, with at most `shots` support windows in a category."""
    keep = np.ones(len(examples.category), bool)
    for c in range(examples.categories):
        keep[np.flatnonzero(examples.support & (examples.category == c))[shots:]] = False
    e = examples
    return Examples(e.joints[keep], e.visible[keep], e.category[keep], e.support[keep])


def judge_engine(engine: Engine, exact: Output, examples: Examples, profile: Profile) -> tuple[Verdict, Output]:
    """The worst verdict over batches of every bucket size, and the output that differs most from `exact`.

    Each size is judged with support features of the engine's own, and with the float32 ones that `run` gives it. Only
    outputs with the float32 ones are returned.
    """
    verdicts, given = [], []
    for n in buckets(profile.batch[0], engine.staging.size):
        embedding = run_all(engine, examples.joints, examples.visible, n)[0]
        for features in (embedding, exact.embedding):
            support = features[examples.support].reshape(examples.categories, -1, features.shape[1])
            given.append(Output(embedding, distances(engine, examples, support, profile, n)))
            verdicts.append(compare(exact, given[-1], examples))
    return worst(verdicts), max(given[1::2], key=lambda short: max(differences(exact, short).values()))


def distances(engine: Engine, examples: Examples, support: Float, profile: Profile, size: int = 0) -> Float:
    """distance (N, G) to `support` (G, K, D), through a plan that may take fewer categories at a time, or more shots.

    `size`: windows in a batch; 0: as many as the engine has room for.
    """
    most, out = profile.categories[2], []
    for i in range(0, len(support), most):
        part = support[i : i + most]
        g = max(len(part), profile.categories[0])
        k = max(part.shape[1], profile.shots[0])
        padded = np.zeros((g, k, part.shape[2]), np.float32)
        mask = np.zeros((g, k), np.float32)
        padded[: len(part), : part.shape[1]], mask[:, : part.shape[1]] = part, 1
        padded[len(part) :, : part.shape[1]] = part[0]
        engine.bind(padded, mask)
        out.append(run_all(engine, examples.joints, examples.visible, size)[1][:, : len(part)])
    return np.concatenate(out, 1)


def differences(exact: Output, short: Output) -> dict[str, float]:
    """The greatest absolute difference in each output."""
    return {
        "embedding": float(np.abs(exact.embedding - short.embedding).max()),
        "distance": float(np.abs(exact.distance - short.distance).max()),
    }


def latency(engine: Engine, profile: Profile, runs: int = RUNS) -> dict[str, list[float]]:
    """[p50, p99] in ms by batch size, from staging buffer to result, against the bound support set."""
    out = {}
    for n in buckets(profile.batch[0], engine.staging.size):
        n = min(n, engine.staging.size)
        times = []
        for _ in range(runs + 10):
            t = time.perf_counter()
            engine.run(n)
            times.append(1000 * (time.perf_counter() - t))
        out[str(n)] = [round(float(np.percentile(times[10:], q)), 4) for q in (50, 99)]
    return out


def gate_error(
    verdict: Verdict,
    half: bool,
    data: bytes,
    islands: Sequence[str],
    exact: Output,
    examples: Examples,
    passes: Callable[[Sequence[str]], bool],
) -> BundleError:
    """The error for a plan that fails the gate. Its fix names parts to keep in float32 with which a plan passed."""
    why = "; ".join(verdict.failures)
    if not half:
        return BundleError("the plan fails the gate", why=why, fix="report it with TensorRT's version and the GPU")
    if importlib.util.find_spec("onnx") is None:
        fix = "use --precision fp32, or pip install onnx to be told which parts to keep in float32"
        return BundleError("the plan fails the gate", why=why, fix=fix)
    from builder.keep import shortest_passing, sorted_by_cost

    keep = shortest_passing(sorted_by_cost(data, islands, exact, examples), passes)
    if keep is None:
        return BundleError(
            "the plan fails the gate", why=f"{why}, whatever is kept in float32", fix="use --precision fp32"
        )
    return BundleError(
        "the plan fails the gate",
        why=why,
        fix="keep these parts in float32: build with " + " ".join(f"--float32 {p}" for p in keep),
    )
