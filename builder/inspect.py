"""Describes a bundle or an engine, what can run it, and why not here (`haad-edge inspect`). Needs no torch or onnx.

A file whose hash does not match is not loaded, and nothing is claimed about what could not be read.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import onnxruntime as ort

from builder.operations import TENSORRT, objections, opsets_of
from edge.bundle import GRAPH, Bundle, measured, open_bundle
from edge.commands.doctor import Finding
from edge.engine.machine import this_machine
from edge.engine.places import memory_of
from edge.engine.plans import choose, misfit
from edge.engine.record import (
    FOLDER,
    PLANS,
    RECORD,
    actual_precision,
    engine_names,
    read_plan,
    read_record,
    rebuild_command,
    stale,
)
from edge.engine.tensorrt import room_of
from edge.errors import BundleError, EngineError, command


def find(path: Path) -> tuple[Bundle, str | None]:
    """The bundle that a path names; and the target if the path is one of its engine folders, or a file in one."""
    if path.is_file():
        given, path = path, path.parent
        if not any((path / name).exists() for name in ("manifest.json", RECORD)):
            raise BundleError(
                f"{given}: neither a bundle nor a file of one",
                why=f"there is no manifest.json next to it, in {path.absolute()}",
                fix="name the folder of a bundle, or one of its engines/<target> folders",
            )
    if (path / RECORD).is_file() and path.resolve().parent.name == FOLDER:
        bundle, target = open_bundle(path.resolve().parent.parent), path.resolve().name
        if target not in engine_names(bundle):
            raise BundleError(
                f"{path}: not in its bundle's manifest",
                why="so its hash cannot be checked",
                fix=rebuild_command(bundle, target),
            )
        return bundle, target
    return open_bundle(path), None


def inspect(path: Path) -> list[Finding]:
    """All findings on a bundle or an engine. Raises BundleError where neither is found."""
    bundle, target = find(path)
    if target:
        return _engine(bundle, target)
    m = bundle.manifest
    sets = m.training.get("sets")
    names = [str(s.get("name")) for s in sets if isinstance(s, dict)] if isinstance(sets, list) else []
    out = [
        Finding("bundle", "ok", f"{bundle.model}, format {m.format}"),
        Finding("windows", "ok", f"{m.frames} frames over {m.seconds:g} s of {m.layout}, embedding of {m.embedding}"),
        Finding("trained on", "ok", ", ".join(names) or "not recorded"),
        Finding("measured", "ok", "; ".join(measured(m))),
        *files(bundle),
    ]
    data = intact(bundle, GRAPH)
    if data is None:
        missing = GRAPH not in m.files
        fix = command("build", bundle.root, "--target", "onnx")
        out.append(Finding("graph", "absent", "not built yet" if missing else "not read: see its file above", fix))
    else:
        found = m.parity
        if found:
            text = ", ".join(
                f"{k} {found[k]:.1e}" for k in ("embedding", "distance") if isinstance(found.get(k), float)
            )
            out.append(Finding("parity when built", "ok", f"with {found.get('against')}: {text}"))
        out += graph(data)
        out.append(_runs("runs on ONNX Runtime", data, command("run", "--bundle", bundle.root)))
    for name in engine_names(bundle):
        out += _engine(bundle, name)
    return [*out, _tensorrt(bundle)]


def files(bundle: Bundle) -> list[Finding]:
    """For each file of the manifest, whether its sha256 matches; then the files that are not in the manifest."""
    out = []
    for name in bundle.manifest.files:
        try:
            size = len(bundle.read(name))
            out.append(Finding(f"file {name}", "ok", f"{size / 1e3:.0f} kB, sha256 matches"))
        except BundleError as e:
            out.append(Finding(f"file {name}", "broken", e.what + (f": {e.why}" if e.why else ""), e.fix))
    known = {*bundle.manifest.files, "manifest.json"}
    here = (p.relative_to(bundle.root).as_posix() for p in sorted(bundle.root.rglob("*")) if p.is_file())
    if strange := [name for name in here if name not in known]:
        out.append(Finding("other files", "absent", f"not in the manifest, so never read: {', '.join(strange[:8])}"))
    return out


def intact(bundle: Bundle, name: str) -> bytes | None:
    """The bytes of a file whose hash matches; None otherwise."""
    try:
        return bundle.read(name)
    except BundleError:
        return None


def graph(data: bytes) -> list[Finding]:
    """Opset, operations, and for each TensorRT version whether its parser reads the graph correctly."""
    if importlib.util.find_spec("onnx") is None:
        return [
            Finding(
                "operations",
                "absent",
                "opset, operations and TensorRT versions: not checked, since the package onnx is missing",
                "pip install onnx, which needs a network",
            )
        ]
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as e:  # protobuf has errors of its own
        return [Finding("operations", "broken", f"not an ONNX graph: {e}", "build it again")]
    count = Counter(n.op_type for n in model.graph.node)
    weights = sum(len(t.raw_data) for t in model.graph.initializer)
    kinds = " ".join(f"{name}×{n}" for name, n in sorted(count.items()))
    opset = ", ".join(f"{d} {v}" for d, v in opsets_of(model).items())
    out = [Finding("operations", "ok", f"opset {opset}; {weights / 1e6:.2f} MB of weights; {kinds}")]
    for parser in TENSORRT:
        why = objections(model, parser)
        name = f"parser of TensorRT {parser.version}"
        out.append(Finding(name, "absent", "; ".join(why[:3])) if why else Finding(name, "ok", "reads it, by its list"))
    return out


def _plan(bundle: Bundle, target: str) -> list[Finding]:
    """What a plan is and whether this machine can run it, from its record and hash, without loading it."""
    name = f"engine {target}"
    try:
        record = read_plan(bundle, target)
    except BundleError as e:
        return [Finding(name, "broken", e.what + (f": {e.why}" if e.why else ""), e.fix)]
    anew, here = rebuild_command(bundle, target, record.asked), this_machine()
    try:
        why, size = stale(bundle, record), len(bundle.read(f"{FOLDER}/{target}/{record.file}"))
    except BundleError as e:
        why, size = stale(bundle, record) or e.what + (f": {e.why}" if e.why else ""), 0
    if why:
        return [Finding(name, "broken", why, anew)]
    g, p = record.gate, record.profile
    times = ", ".join(f"{n}: {a:g} {b:g}" for n, (a, b) in record.latency_ms.items())
    ranges = ", ".join(
        f"{':'.join(map(str, axis))} {what}"
        for axis, what in ((p.batch, "windows"), (p.categories, "categories"), (p.shots, "windows in each"))
    )
    ranges += f", {record.together} windows at once" if record.together > 1 else ""
    memory = memory_of(room_of(record), bundle.manifest.frames, bundle.manifest.embedding, p.batch[2])
    how = "strongly typed" if record.typed else "by flags"
    in_float32 = " ".join(record.islands) if actual_precision(record) == "fp16" else "all of it"
    out = [
        Finding(name, "ok", f"{record.precision} of {record.model}, graph {record.graph[:12]}, {size / 1e6:.2f} MB"),
        Finding(f"{name}: float32 in", "ok", in_float32),
        Finding(
            f"{name}: gate",
            "ok",
            f"cosine ≥ {g.cosine:.6f}, distance within {g.distance:.1e}, AUROC within {g.auroc:.1e}, "
            f"over {g.windows} windows",
        ),
        Finding(
            f"{name}: built on",
            "ok",
            f"{record.gpu} (compute capability {record.compute_capability}, {record.machine}), TensorRT "
            f"{record.tensorrt}{' and later' if record.version_compatible else ''}, {how}, CUDA {record.cuda}, "
            f"driver {record.driver_release or 'of unknown release'} for CUDA {record.driver}; ms p50 and p99 by batch "
            f"size: {times}",
        ),
        Finding(f"{name}: takes", "ok", f"{ranges}; {memory / 1e6:.1f} MB of device memory besides the plan's own"),
    ]
    if why := misfit(bundle, record, here):
        fix = "" if here.problem else f"for this machine: {anew}"  # without a GPU it may still fit where it will run
        return [*out, Finding(f"{name} here", "absent", why, fix)]
    detail = command("run", "--bundle", bundle.root)
    if here.gpu and here.gpu.name != record.gpu:
        detail += f"; built for {record.gpu}, and a plan built for {here.gpu.name} may be faster: {anew}"
    return [*out, Finding(f"{name} here", "ok", detail)]


def _engine(bundle: Bundle, target: str) -> list[Finding]:
    name = f"engine {target}"
    if target.startswith(PLANS):
        return _plan(bundle, target)
    try:
        record = read_record(bundle, target)
        data = bundle.read(f"{FOLDER}/{target}/{record.file}")
    except BundleError as e:
        return [Finding(name, "broken", e.what + (f": {e.why}" if e.why else ""), e.fix)]
    if why := stale(bundle, record):
        return [Finding(name, "broken", why, rebuild_command(bundle, target, record.asked))]
    g, times = record.gate, ", ".join(f"{n}: {t:g}" for n, t in record.latency_ms.items())
    return [
        Finding(
            name, "ok", f"{record.precision} of {record.model}, graph {record.graph[:12]}, {len(data) / 1e6:.2f} MB"
        ),
        Finding(f"{name}: float32 in", "ok", " ".join(record.islands)),
        Finding(
            f"{name}: gate",
            "ok",
            f"cosine ≥ {g.cosine:.6f}, distance within {g.distance:.1e}, AUROC within {g.auroc:.1e}, "
            f"over {g.windows} windows",
        ),
        Finding(f"{name}: built on", "ok", f"{record.runtime}, {record.machine}; ms by batch size: {times}"),
        Finding(
            f"{name}: for", "ok", f"TensorRT {', '.join(record.reads)}, strongly typed: by their lists, none was tried"
        ),
        _runs(f"{name} on ONNX Runtime", data, "", note=", for checking only; `run` uses the float32 graph"),
    ]


def _runs(name: str, data: bytes, how: str, note: str = "") -> Finding:
    """Whether ONNX Runtime can load the graph here, and the inputs and outputs that it reports."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # with more it asks for cores that a container may not have, and logs errors
    options.log_severity_level = 4  # the finding below says what it refuses
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions have no common base class
        return Finding(name, "broken", f"version {ort.__version__} refuses it: {e!s:.300}", "upgrade onnxruntime")
    shapes = ", ".join(f"{i.name} {i.shape}" for i in (*session.get_inputs(), *session.get_outputs()))
    return Finding(name, "ok", f"{ort.__version__}: {shapes}{note}" + (f"; {how}" if how else ""))


def _tensorrt(bundle: Bundle) -> Finding:
    """The plan that `run` would use here, or why there is none."""
    try:
        record, _ = choose(bundle, this_machine())
    except EngineError as e:
        return Finding("runs on TensorRT", "absent", e.why, e.fix)
    return Finding("runs on TensorRT", "ok", f"{record.target}: {command('run', '--bundle', bundle.root)}")
