"""The graphs in the hands of a real, strongly typed TensorRT: TensorRT for RTX compiles for a GPU that is not there.

It is NVIDIA's other product with the parser, the network and the builder of TensorRT 10 and 11, so what it reads, types
and compiles they should too; what it makes runs on an RTX card alone. Nothing of it is run here. Its networks are
always bound to their types: that ours asks for it, `test_plan.py` tells.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import builder.plan
from builder.compile import typed_graph
from builder.export import export
from builder.half import ISLANDS, in_island, parts, to_half
from builder.operations import ALLOWED, TYPED
from builder.plan import PlanSpec, create_network, is_typed, make_plan
from builder.profile import parse_profile, shapes
from builder.together import widened
from builder.ways import Way
from edge.bundle import GRAPH, Bundle, open_bundle
from edge.engine.tensorrt import make_log
from edge.errors import EngineError
from edge.skeleton import J
from tests.trainer.made import ENCODER
from trainer.encoder import Encoder, Graph

pytestmark = pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")  # its timing cache

NAME = "haad-0123456789abcdef"
CARD = "SM86"  # the nearest that it compiles for to an Orin's 8.7


@pytest.fixture(scope="session")
def product() -> tuple[Any, Any]:
    """The module, and the one logger of the process: it holds on to the first that it is given."""
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="no TensorRT for RTX: it has wheels for x86-64 alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", trt)
        make_log.cache_clear()
        log = make_log()
        make_log.cache_clear()
    return trt, log


@pytest.fixture
def trt(product: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """It, in the place of TensorRT; told which card, since it finds none."""
    trt, log = product
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(builder.plan, "make_log", lambda: log)

    def configure(config: Any, spec: PlanSpec, real: Callable[..., None] = builder.plan.configure) -> None:
        real(config, spec)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, CARD), 0)

    monkeypatch.setattr(builder.plan, "configure", configure)
    log.lines.clear()
    yield trt
    log.lines.clear()


@pytest.fixture(scope="module")
def base() -> Bundle:
    return open_bundle()


def spec(bundle: Bundle, way: Way = Way(1, request_half=False), frames: int = 0, **given: Any) -> PlanSpec:
    """What `haad-edge build` asks for by default."""
    m = bundle.manifest
    sizes = shapes(way.profile(parse_profile()), frames or m.frames, J, m.embedding)
    return PlanSpec(**({"name": NAME, "shapes": sizes, "half": True, "islands": ISLANDS, "workspace": 1 << 30} | given))


def network_of(trt: Any, graph: bytes) -> Any:
    """The network as it reads it, or its first error."""
    log = builder.plan.make_log()
    network = create_network(trt.Builder(log))
    parser = trt.OnnxParser(network, log)
    read = parser.parse(graph)
    assert read, str(parser.get_error(0))
    return network


def computed(trt: Any, network: Any) -> Iterator[tuple[str, Any]]:
    """The name and the type of every floating-point number that is computed, and not only moved or cast."""
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.type.name not in {"SLICE", "SHUFFLE", "CONCATENATION", "GATHER", "CAST", "CONSTANT"}:
            for kind in (layer.get_output(k).dtype for k in range(layer.num_outputs)):
                if kind in (trt.float16, trt.float32):
                    yield layer.name, kind


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("together", [1, 8])
def test_the_shipped_model_is_compiled(trt: Any, base: Bundle, together: int, half: bool) -> None:
    assert is_typed()
    data = base.read(GRAPH)
    graph = data if together == 1 else widened(data, together)
    plan = make_plan(
        typed_graph(graph, ISLANDS) if half else graph, spec(base, Way(together, request_half=False), half=half)
    )
    assert NAME.encode() in plan, "the name comes back from the engine"
    weights = sum(numpy_helper.to_array(t).nbytes for t in onnx.load_from_string(graph).graph.initializer)
    assert len(plan) > weights / 2


@pytest.mark.parametrize("together", [1, 8])
def test_it_types_the_float16_graph_as_the_islands_say(trt: Any, base: Bundle, together: int) -> None:
    graph = widened(base.read(GRAPH), together)
    network = network_of(trt, typed_graph(graph, ISLANDS))
    kinds = {(in_island(name, ISLANDS), kind) for name, kind in computed(trt, network)}
    assert kinds == {(True, trt.float32), (False, trt.float16)}
    assert [(t.name, t.dtype) for t in map(network.get_output, range(network.num_outputs))] == [
        ("embedding", trt.float32),
        ("distance", trt.float32),
    ]


def test_the_shapes_it_finds_are_what_a_record_says(trt: Any, base: Bundle) -> None:
    from builder.compile import free_shapes
    from edge.engine.tensorrt import INPUTS, OUTPUTS

    network, m = network_of(trt, typed_graph(base.read(GRAPH), ISLANDS)), base.manifest
    inputs = {t.name: list(t.shape) for t in map(network.get_input, range(network.num_inputs))}
    outputs = {t.name: list(t.shape) for t in map(network.get_output, range(network.num_outputs))}
    assert inputs == free_shapes(m.frames, m.embedding, INPUTS)
    assert outputs == free_shapes(m.frames, m.embedding, OUTPUTS)


def test_whatever_part_is_kept_in_float32(trt: Any, base: Bundle) -> None:
    """What a build that fails its gate tells its user to keep."""
    data = base.read(GRAPH)
    names = parts(onnx.load_from_string(data), ISLANDS)
    assert len(names) > 5
    for name in names:
        network = network_of(trt, typed_graph(data, [*ISLANDS, name]))
        kinds = {(n.startswith((*ISLANDS, name)), kind) for n, kind in computed(trt, network)}
        assert kinds == {(True, trt.float32), (False, trt.float16)}, name


@pytest.mark.parametrize("coefficients", [1, 5, 9])
@pytest.mark.parametrize("together", [1, 8])
def test_other_encoders(trt: Any, base: Bundle, coefficients: int, together: int) -> None:
    torch.manual_seed(2)
    config = replace(ENCODER, coefficients=coefficients)
    data = export(Graph(Encoder(config)).eval())
    sizes = shapes(parse_profile("8:16:64"), config.frames, J, config.embedding)
    assert make_plan(typed_graph(widened(data, together), ISLANDS), spec(base, shapes=sizes))


def test_a_type_that_does_not_fit_is_refused(trt: Any, base: Bundle) -> None:
    """Each cast is needed; without it the product or sum behind it has two types."""
    typed = to_half(base.read(GRAPH))
    casts = [n for n in onnx.load_from_string(typed).graph.node if n.op_type == "Cast"]
    assert casts
    for cast in casts:
        model = onnx.load_from_string(typed)
        model.graph.node.remove(next(n for n in model.graph.node if n.name == cast.name))
        for node in model.graph.node:
            node.input[:] = [cast.input[0] if i == cast.output[0] else i for i in node.input]
        with pytest.raises(EngineError, match="must have same input types") as e:
            make_plan(model.SerializeToString(), spec(base))
        assert "\n" not in str(e.value)


def test_each_failure_is_told_its_own_reason(trt: Any, base: Bundle, tmp_path: Path) -> None:
    data, timings = base.read(GRAPH), tmp_path / "timings.bin"
    timings.write_bytes(b"of another machine")
    with pytest.raises(EngineError, match=rf"TensorRT {trt.__version__} cannot read the graph: .*Failed to parse"):
        make_plan(b"no graph", spec(base))
    for _ in range(2):
        with pytest.raises(EngineError, match=r"could not build the plan: .*profile has min=47.*tensor has 48") as e:
            make_plan(data, spec(base, frames=base.manifest.frames - 1, half=False, timing_cache=timings))
        assert str(e.value).count("min=47") == 1 and "Failed to parse" not in str(e.value)
        assert "\n" not in str(e.value)


def test_a_version_compatible_plan_can_be_asked_for(trt: Any, base: Bundle) -> None:
    assert make_plan(typed_graph(base.read(GRAPH), ISLANDS), spec(base, version_compatible=True))


def one(kind: str, axes: Sequence[int], opset: int, attribute: bool) -> bytes:
    """x (2, 3, 4) → one reduction → y, its axes an attribute or an input."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [2, 3, 4]), ("y", None)))
    more = {"axes": list(axes)} if attribute else {}
    node = helper.make_node(kind, ["x"] if attribute else ["x", "axes"], ["y"], keepdims=0, **more)
    values = [] if attribute else [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    graph = helper.make_graph([node], "g", [x], [y], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    out: bytes = model.SerializeToString()
    return out


def test_the_list_of_operations_holds(trt: Any) -> None:
    log = builder.plan.make_log()
    parser = trt.OnnxParser(create_network(trt.Builder(log)), log)
    known = ALLOWED.union(*(p.extra for p in TYPED))
    assert [o for o in sorted(known) if not parser.supports_operator(o)] == []
    assert not parser.supports_operator("NoSuchOperation")


@pytest.mark.parametrize(
    ("kind", "opset", "attribute"),
    [("ReduceSum", 17, False), ("ReduceMax", 17, True), ("ReduceMean", 18, False), ("ReduceL2", 18, False)],
)
def test_axes_are_read_where_a_typed_parser_should(trt: Any, kind: str, opset: int, attribute: bool) -> None:
    """`Parser.reads_axes`; the last two are what 8.x reads as a reduction over everything."""
    assert all(p.reads_axes for p in TYPED)
    network = network_of(trt, one(kind, [1], opset, attribute))
    assert list(network.get_output(0).shape) == [2, 4]
