"""From a graph to a TensorRT plan, with TensorRT 8.5 to 11: what a version lacks is found by name.

                    STRONGLY_TYPED is there          it is not (8.x)
    fp16            the typed float16 graph          the float32 graph, the FP16 flag, types asked for by layer name
    fp32            the float32 graph                the float32 graph

TF32 is off everywhere: its products are no finer than float16's, and the islands are there to be finer.
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

from builder.islands import ISLANDS, Does, Layer, in_island, types
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
"""What TensorRT's kinds of layer do; all others compute."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a plan is to be built. `shapes`: least, usual, greatest of each input; `workspace` in bytes.

    `ask`: where precision is a flag, ask for float16 by layer; else leave it to the builder.
    """

    name: str
    shapes: Shapes
    half: bool
    islands: Sequence[str]
    workspace: int
    timing_cache: Path | None = None
    version_compatible: bool = False
    ask: bool = False


def is_typed() -> bool:
    """Whether the TensorRT here can be bound to the types that a graph has."""
    import tensorrt as trt

    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Meanwhile Ctrl-C ends the process, and a build takes minutes.

    Else Python raises it where TensorRT next tells our log of something, and its bindings drop what a log raises.
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


@at_once()
def make_plan(graph: bytes, order: Order) -> bytes:
    """Compile a graph: the typed float16 one where `is_typed`, else the float32 one. Raises EngineError.

    Only on a machine whose driver has been asked for a device: TensorRT may end the process without one.
    """
    import tensorrt as trt

    log = make_log()
    builder = start(trt.Builder, log)
    config = builder.create_builder_config()
    configure(config, order)
    _load_timings(config, order.timing_cache)
    log.lines.clear()  # what was said of other plans, and of timings that are not taken
    network = create_network(builder)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(
            f"TensorRT {trt.__version__} cannot read the graph",
            why=textwrap.shorten("; ".join(errors), 400, placeholder=" …") or log.told(),
            fix="haad-edge inspect BUNDLE says which versions read it",
        )
    network.name = order.name
    if order.half and not is_typed():
        _weakly_typed(network, config, order)
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in order.shapes.items():
        profile.set_shape(name, least, usual, most)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError("TensorRT refuses the shapes", why=log.told(), fix="other --batch and --support")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT {trt.__version__} could not build the plan",
            why=log.told(),
            fix="free memory on the GPU, or a smaller --batch; with --workspace it may try more ways",
        )
    _save_timings(config, order.timing_cache)
    return bytes(plan)


def create_network(builder: trt.Builder) -> trt.INetworkDefinition:
    """An empty network, bound to the types it is given where that can be."""
    import tensorrt as trt

    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):  # the first is required in 8, ignored in 10, gone in 11
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return builder.create_network(flags)


def configure(config: trt.IBuilderConfig, order: Order) -> None:
    """What holds for every plan: workspace, kernels, compatibility; no TF32."""
    import tensorrt as trt

    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace)
    config.clear_flag(trt.BuilderFlag.TF32)
    # TensorRT's own kernels alone: no handle of cuBLAS or cuDNN, which cost memory and are not everywhere.
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
    if order.version_compatible:
        # Without the runtime of its version inside, so that a plan holds no code for the host: edge.engine.tensorrt
        # loads that from its own package.
        flags = [getattr(trt.BuilderFlag, n, None) for n in ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME")]
        for flag in flags:
            if flag is None:
                raise EngineError(
                    f"TensorRT {trt.__version__} builds no version-compatible plans",
                    why="that came with 8.6",
                    fix="leave --version-compatible out",
                )
            config.set_flag(flag)


def _weakly_typed(network: trt.INetworkDefinition, config: trt.IBuilderConfig, order: Order) -> None:
    """Ask for each layer's type. The builder may go against a wish that it cannot fulfil: the gate judges the plan."""
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
    wanted = types(described, inputs, order.islands, order.ask)
    if not any(in_island(layer.name, order.islands) for layer in layers):
        raise EngineError(
            "no layer of the network has a name that the islands know",
            why=f"looked for {' '.join(order.islands)}",
            fix="haad-edge build BUNDLE --target onnx, then again",
        )
    asked = [p for p in order.islands if p not in ISLANDS]
    if unknown := [p for p in asked if not any(in_island(layer.name, [p]) for layer in layers)]:
        there = dict.fromkeys("/".join(layer.name.split("/")[:3]) for layer in layers if layer.name.startswith("/"))
        raise EngineError(
            f"no layer of the network has a name that begins with {unknown[0]!r}",
            why=textwrap.shorten(
                f"they begin with {' '.join(n for n in there if not in_island(n + '/', ISLANDS))}", 400
            ),
            fix="another --float32",
        )
    for layer, known, kind in zip(layers, described, wanted, strict=True):
        if kind and known.makes and hasattr(layer, "precision") and hasattr(layer, "set_output_type"):
            layer.precision = getattr(trt, kind)
            for k in range(layer.num_outputs):
                if layer.get_output(k).name in known.makes:
                    layer.set_output_type(k, getattr(trt, kind))


def _load_timings(config: trt.IBuilderConfig, path: Path | None) -> None:
    """A cache of another GPU or version is not taken; the build then measures anew and writes its own."""
    known = b""
    if path is not None and path.is_file():
        known = path.read_bytes()
    for data in (known, b""):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def _save_timings(config: trt.IBuilderConfig, path: Path | None) -> None:
    cache = config.get_timing_cache()
    if path is not None and cache is not None:
        replace_file(path, bytes(cache.serialize()))
