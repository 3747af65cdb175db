"""Computes the least time that a batch can take: its bytes and operations over the speeds measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.skeleton import J

CATEGORIES, SHOTS = 4, 16
SQUARE = 4096
Step = Callable[[], object]


def timed(step: Step, seconds: float, least: int = 50) -> list[float]:
    """Time calls for `seconds`, and at least `least` calls: milliseconds of each, after one call to warm up."""
    step()
    out: list[float] = []
    until = time.perf_counter() + seconds
    while len(out) < least or time.perf_counter() < until:
        t = time.perf_counter()
        step()
        out.append(1000 * (time.perf_counter() - t))
    return out


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Bytes per second into and out of the device; float16 multiply-adds per second; multiply-adds of a window."""

    bytes_in: float
    bytes_out: float
    multiply_adds: float
    of_a_window: int

    def floor(self, batch: int, frames: int) -> dict[str, float]:
        """The least milliseconds of a batch, and the most windows per second, with copies and products overlapped."""
        copy = 1000 * batch * frames * J * 4 * 4 / self.bytes_in
        back = 1000 * batch * CATEGORIES * 4 / self.bytes_out
        compute = 1000 * batch * self.of_a_window / self.multiply_adds
        return {"batch": batch, "ms": copy + compute + back, "rate": 1000 * batch / max(copy, compute, back)}


def ceilings(graph: bytes, seconds: float) -> Ceilings:
    """Measure the ceilings. Raises EngineError if the device or TensorRT refuses."""
    operations = multiply_adds(graph)
    return Ceilings(*copy_speed(seconds), product_speed(seconds), operations)


def multiply_adds(graph: bytes) -> int:
    """Count the multiply-adds of the graph's matrix products for one window, against CATEGORIES × SHOTS rows."""
    import onnx

    model = onnx.load_from_string(graph)
    sizes = {"batch": 1, "categories": CATEGORIES, "shots": SHOTS}
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = sizes[axis.dim_param]
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.input, *inferred.value_info, *inferred.output)
    } | {t.name: list(t.dims) for t in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type == "MatMul":
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][0 if transposed else 1]
    return total


def copy_speed(seconds: float) -> tuple[float, float]:
    """Measure bytes per second from pinned memory to the device, and back, in pieces of 64 MiB."""
    from edge.engine.cuda import CudaDevice

    device = CudaDevice()
    try:
        host, memory = device.pinned((16 << 20,)), device.allocate(64 << 20)
        stream, event = device.stream(), device.event()

        def speed(copy: Step) -> float:
            def step() -> None:
                copy()
                device.record(event, stream)
                device.synchronize(event)

            return host.nbytes / statistics.median(timed(step, seconds)) * 1000

        into = speed(lambda: device.copy_in(memory, host, stream))
        return into, speed(lambda: device.copy_out(host, memory, stream))
    finally:
        device.close()


def product_speed(seconds: float) -> float:
    """Measure float16 multiply-adds per second, with a product of two large squares, compiled as the plans are."""
    import tensorrt as trt

    from builder.plan import PlanSpec, configure, create_network, is_typed
    from edge.engine.cuda import CudaDevice
    from edge.engine.tensorrt import make_log, start
    from edge.errors import EngineError

    device, log = CudaDevice(), make_log()
    try:
        builder = start(trt.Builder, log)
        network = create_network(builder)
        a, b = (network.add_input(n, trt.float16, (SQUARE, SQUARE)) for n in "ab")
        layer = network.add_matrix_multiply(a, trt.MatrixOperation.NONE, b, trt.MatrixOperation.NONE)
        c = layer.get_output(0)
        c.name = "c"
        network.mark_output(c)
        config = builder.create_builder_config()
        configure(config, PlanSpec(name="c", shapes={}, half=True, islands=(), workspace=1 << 30))
        if not is_typed():
            config.set_flag(getattr(trt.BuilderFlag, "FP16"))  # noqa: B009
            setattr(c, "dtype", trt.float16)  # noqa: B010  # which later versions do not accept
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError("no plan for a product of two squares", why=log.told())
        runtime = start(trt.Runtime, log)
        engine = runtime.deserialize_cuda_engine(bytes(plan))
        context = engine.create_execution_context()
        stream, event = device.stream(), device.event()
        for name in "abc":
            context.set_tensor_address(name, device.allocate(2 * SQUARE * SQUARE).address)

        def step() -> None:
            context.execute_async_v3(stream)
            device.record(event, stream)
            device.synchronize(event)

        return SQUARE**3 / statistics.median(timed(step, seconds)) * 1000
    finally:
        device.close()
