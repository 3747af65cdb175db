"""Compiles a graph into a TensorRT plan, with TensorRT 8.5 to 11. Looks up by name what some versions lack.

                    with STRONGLY_TYPED              without (8.x)
    fp16            the typed float16 graph          the float32 graph, the FP16 flag, types requested by layer name
    fp32            the float32 graph                the float32 graph

TF32 is off everywhere: its products are no more precise than float16's, and the float32 islands exist for precision.
"""

from __future__ import annotations

import contextlib
import signal
import textwrap
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.islands import ISLANDS, Does, Layer, in_island, layer_types
from edge.bundle import replace_file
from edge.engine.tensorrt import make_log, start
from edge.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

Shapes = Mapping[str, Sequence[tuple[int, ...]]]
_DOES: dict[str, Does] = {
    "CONCATENATION": "moves",
    "GATHER": "moves",
    "SLICE": "moves",
    "SHUFFLE": "reshapes",
    "CONSTANT": "is constant",
}
"""What each of TensorRT's layer types does with its inputs; all types not listed compute."""


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """How to build a plan. `shapes`: minimum, usual and maximum shape of each input; `workspace` in bytes.

    `request_half`: where precision is a flag, request float16 layer by layer; else leave it to TensorRT's builder.
    """

    name: str
    shapes: Shapes
    half: bool
    islands: Sequence[str]
    workspace: int
    timing_cache: Path | None = None
    version_compatible: bool = False
    request_half: bool = False


def is_typed() -> bool:
    """Whether the installed TensorRT can be bound to the types in a graph (strong typing)."""
    import tensorrt as trt

    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once inside the block: a build takes minutes.

    Otherwise Python would raise KeyboardInterrupt the next time TensorRT calls our logger, and TensorRT's bindings
    swallow what a logger raises.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@interruptible()
def make_plan(graph: bytes, spec: PlanSpec) -> bytes:
    """Compile a graph: for fp16 the typed float16 one where `is_typed`, else the float32 one. Raises EngineError.

    Make sure first that the driver has a device: without one, TensorRT may end the process.
    """
    import tensorrt as trt

    log = make_log()
    builder = start(trt.Builder, log)
    config = builder.create_builder_config()
    configure(config, spec)
    _load_timings(config, spec.timing_cache)
    log.lines.clear()  # messages about earlier plans, and about a timing cache that was rejected
    network = create_network(builder)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(
            f"TensorRT {trt.__version__} cannot read the graph",
            why=textwrap.shorten("; ".join(errors), 400, placeholder=" …") or log.told(),
            fix="haad-edge inspect BUNDLE lists the versions that can",
        )
    network.name = spec.name
    if spec.half and not is_typed():
        _weakly_typed(network, config, spec)
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in spec.shapes.items():
        profile.set_shape(name, least, usual, most)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError("TensorRT refuses the shapes", why=log.told(), fix="use another --batch or --support")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT {trt.__version__} could not build the plan",
            why=log.told(),
            fix="free memory on the GPU, use a smaller --batch, or give the builder a larger --workspace",
        )
    _save_timings(config, spec.timing_cache)
    return bytes(plan)


def create_network(builder: trt.Builder) -> trt.INetworkDefinition:
    """An empty network, strongly typed where TensorRT supports it."""
    import tensorrt as trt

    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):  # the first is required in 8, ignored in 10, gone in 11
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return builder.create_network(flags)


def configure(config: trt.IBuilderConfig, spec: PlanSpec) -> None:
    """Apply the settings that every plan shares: workspace, kernel sources, version compatibility, no TF32."""
    import tensorrt as trt

    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.workspace)
    config.clear_flag(trt.BuilderFlag.TF32)
    # Only TensorRT's own kernels: cuBLAS and cuDNN cost memory, and are not installed everywhere.
    sources = 0
    for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"):
        source = getattr(trt.TacticSource, name, None)
        if source is not None:
            sources |= 1 << int(source)
    config.set_tactic_sources(sources)
    external = getattr(trt.PreviewFeature, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", None)
    if external is not None:
        config.set_preview_feature(external, True)
    sharing = getattr(trt.PreviewFeature, "PROFILE_SHARING_0806", None)
    if sharing is not None:  # else one execution context alone can use the profile, and every CUDA graph needs its own
        config.set_preview_feature(sharing, True)
    if spec.version_compatible:
        # Leave the lean runtime out of the plan, so that a plan holds no host code: edge.engine.tensorrt loads that
        # runtime from its own package.
        flags = [getattr(trt.BuilderFlag, n, None) for n in ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME")]
        for flag in flags:
            if flag is None:
                raise EngineError(
                    f"TensorRT {trt.__version__} cannot build version-compatible plans",
                    why="they need TensorRT 8.6 or later",
                    fix="leave out --version-compatible",
                )
            config.set_flag(flag)


def _weakly_typed(network: trt.INetworkDefinition, config: trt.IBuilderConfig, spec: PlanSpec) -> None:
    """Request a type for each layer. TensorRT may ignore a request it cannot fulfil: the gate judges the plan."""
    import tensorrt as trt

    for name in ("FP16", "PREFER_PRECISION_CONSTRAINTS"):
        config.set_flag(getattr(trt.BuilderFlag, name))
    does = {getattr(trt.LayerType, kind): what for kind, what in _DOES.items()}

    def floats(tensors: Iterable[trt.ITensor | None]) -> list[str]:
        return [t.name for t in tensors if t is not None and t.dtype == trt.float32]

    def seen(layer: trt.ILayer) -> Layer:
        reads = floats(layer.get_input(k) for k in range(layer.num_inputs))
        makes = floats(layer.get_output(k) for k in range(layer.num_outputs))
        return Layer(layer.name, reads, makes, does.get(layer.type, "computes"))

    layers = [network.get_layer(i) for i in range(network.num_layers)]
    described = [seen(layer) for layer in layers]
    inputs = [network.get_input(i).name for i in range(network.num_inputs)]
    wanted = layer_types(described, inputs, spec.islands, spec.request_half)
    if not any(in_island(layer.name, spec.islands) for layer in layers):
        raise EngineError(
            "none of the network's layers belongs to a float32 island",
            why=f"no layer's name begins with any of {' '.join(spec.islands)}",
            fix="haad-edge build BUNDLE --target onnx, then build the plan again",
        )
    asked = [p for p in spec.islands if p not in ISLANDS]
    if unknown := [p for p in asked if not any(in_island(layer.name, [p]) for layer in layers)]:
        there = dict.fromkeys("/".join(layer.name.split("/")[:3]) for layer in layers if layer.name.startswith("/"))
        raise EngineError(
            f"no layer of the network has a name that begins with {unknown[0]!r}",
            why=textwrap.shorten(
                f"names begin with {' '.join(n for n in there if not in_island(n + '/', ISLANDS))}", 400
            ),
            fix="use one of these for --float32",
        )
    for layer, known, kind in zip(layers, described, wanted, strict=True):
        if kind and known.makes and hasattr(layer, "precision") and hasattr(layer, "set_output_type"):
            layer.precision = getattr(trt, kind)
            for k in range(layer.num_outputs):
                if layer.get_output(k).name in known.makes:
                    layer.set_output_type(k, getattr(trt, kind))


def _load_timings(config: trt.IBuilderConfig, path: Path | None) -> None:
    """Load the timing cache, if there is one. Raises EngineError for a file that TensorRT does not take as one.

    That may be a cache of another GPU or version, or a file that is none, and must not be written over.
    """
    known = path.read_bytes() if path is not None and path.is_file() else b""
    cache = config.create_timing_cache(known)
    if (cache is None or not config.set_timing_cache(cache, False)) and known:
        raise EngineError(
            f"{path}: not a timing cache of this TensorRT and this GPU",
            why="TensorRT refuses it, and it is left as it is",
            fix="delete it, or name another file: --timing-cache PATH",
        )


def _save_timings(config: trt.IBuilderConfig, path: Path | None) -> None:
    cache = config.get_timing_cache()
    if path is not None and cache is not None:
        replace_file(path.resolve(), bytes(cache.serialize()))
