"""Implements `edge.engine.device.Program` with a TensorRT plan, using calls that TensorRT 8.5 to 11 share.

    engine.json ─fits?─► engine.plan ─sha256?─► Runtime ─► engine ─name, inputs, outputs?─► contexts ─► Pipeline

A plan is native code once it is deserialised, so its bytes are checked first, and the same bytes are used. Calls that
some versions lack are looked up by name. Versions are compared only for plans, which run in the one that built them.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import textwrap
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edge.bundle import GRAPH, Bundle, locked, open_bundle
from edge.engine.device import Device, Memory, Room, Stream
from edge.engine.machine import this_machine
from edge.engine.pipeline import Pipeline
from edge.engine.plans import choose
from edge.engine.record import FOLDER, PlanRecord, actual_precision, rebuild_command
from edge.errors import EngineError, NoPlan

if TYPE_CHECKING:
    import tensorrt as trt

R = TypeVar("R")
NOT_STARTED = "see that nvidia-smi works and that TensorRT and the driver are for the same CUDA: docs/jetson.md"
INPUTS = ("joints", "visible", "support", "support_mask")
OUTPUTS = ("embedding", "distance")
OUT_OF_MEMORY = re.compile(r"out[ _]?of[ _]?memory|MemoryAllocation|bad_alloc", re.IGNORECASE)
"""How TensorRT (OutOfMemory), CUDA ("out of memory") and C++ (bad_alloc) say it in TensorRT's log."""


def name_of(graph: str) -> str:
    """The name that a plan is built with. It is the only data of ours that an engine gives back."""
    return f"haad-{graph[:16]}"


@functools.cache
def make_log() -> Any:
    """A logger that keeps the last errors for our own messages, and prints nothing.

    TensorRT keeps using the first logger it gets, so there is one per process. `told` clears it, so that the errors of
    one failure are not reported with the next.
    """
    import tensorrt as trt

    class Log(trt.ILogger):  # type: ignore[misc,unused-ignore]  # without TensorRT nothing is known of it
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.lines.append(msg)

        def told(self) -> str:
            """The errors since the last call, in one line."""
            text = textwrap.shorten("; ".join(self.lines), 400, placeholder=" …")
            self.lines.clear()
            return text or "TensorRT gave no reason"

    return Log()


def start(make: Callable[[Any], R], log: Any) -> R:
    """Make a Runtime or a Builder. If TensorRT cannot start, its bindings raise TypeError over a null pointer."""
    try:
        return make(log)
    except TypeError as e:
        why = f"{e}; {log.told()}" if log.lines else str(e)
        raise EngineError("TensorRT cannot be started", why=why, fix=NOT_STARTED) from None


class TensorrtRun:
    """One execution context, without scratch memory of its own."""

    def __init__(self, context: trt.IExecutionContext, log: Any) -> None:
        self.context: trt.IExecutionContext | None = context
        self._log = log

    def point(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """See `Run.point`."""
        context = self._open()
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(f"TensorRT refuses {name} of shape {shape}", why=self._log.told())
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"TensorRT refuses the address of {name}", why=self._log.told())

    def enqueue(self, stream: Stream) -> None:
        """See `Run.enqueue`."""
        if not self._open().execute_async_v3(stream):
            raise EngineError("the GPU is lost", why=f"TensorRT failed on a batch: {self._log.told()}", lost=True)

    def _open(self) -> trt.IExecutionContext:
        if self.context is None:
            raise RuntimeError("the program was closed")
        return self.context


class TensorrtProgram:
    """A plan, ready to run. Open a CudaDevice in the same thread first: TensorRT uses its context.

    Every run is an execution context of its own, since a CUDA graph relies on the state of the context it was captured
    from (NVIDIA/TensorRT issue 3798). Runs of one place compute one after the other, so they share scratch memory. In
    TensorRT 8.5 a plan's profile belongs to one context: there all runs are the same one, with the memory of the place
    that was first requested, and no graph is captured.
    """

    def __init__(self, plan: bytes, record: PlanRecord, where: str, fix: str, device: Device) -> None:
        import tensorrt as trt

        self._log = make_log()
        self._runtime = start(trt.Runtime, self._log)
        loader = self._runtime
        if record.version_compatible and record.tensorrt != trt.__version__:
            # Versions before 8.6 have no such call; `plans.misfit` keeps such plans from them.
            loader = getattr(self._runtime, "load_runtime")(lean_library(record.tensorrt, where))  # noqa: B009
        engine = loader.deserialize_cuda_engine(plan) if loader else None
        if engine is None:
            why = self._log.told()
            if OUT_OF_MEMORY.search(why):  # a new plan would not help
                raise EngineError(
                    f"{where}: no room on the GPU to load the plan", why=why, fix="stop other programs that use the GPU"
                )
            raise NoPlan(f"{where}: TensorRT {trt.__version__} refuses the plan", why=why, fix=fix)
        if engine.name != name_of(record.graph):
            raise NoPlan(
                f"{where}: the plan is named '{engine.name}'",
                why=f"a plan built from the graph beside it is named {name_of(record.graph)}",
                fix=fix,
            )
        if why := self._strange(engine, record):
            raise NoPlan(f"{where}: the plan is not what engine.json says", why=why, fix=fix)
        self._engine: trt.ICudaEngine | None = engine
        self._runs: list[TensorrtRun] = []
        self._alone = False
        self._where, self._device = where, device
        self._size = max(1, *(getattr(engine, name, 0) for name in ("device_memory_size", "device_memory_size_v2")))
        self._scratch: dict[int, Memory] = {}

    @staticmethod
    def _strange(engine: trt.ICudaEngine, record: PlanRecord) -> str:
        """How the engine's inputs, outputs or profile differ from the record, or ''."""
        import tensorrt as trt

        found: dict[str, list[str]] = {"in": [], "out": []}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            found["in" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "out"].append(name)
            if engine.get_tensor_dtype(name) != trt.float32:
                return f"{name} is not float32"
            shape = {**record.inputs, **record.outputs}.get(name)
            if shape != list(engine.get_tensor_shape(name)):
                return f"{name} has shape {list(engine.get_tensor_shape(name))}, not {shape}"
        if sorted(found["in"]) != sorted(INPUTS) or sorted(found["out"]) != sorted(OUTPUTS):
            return f"its inputs are {found['in']}, its outputs {found['out']}"
        p = record.profile
        for name, axis, wanted in (("joints", 0, p.batch), ("support", 0, p.categories), ("support", 1, p.shots)):
            shapes = engine.get_tensor_profile_shape(name, 0)
            if [list(s)[axis] for s in shapes] != wanted:
                return f"its profile for {name} is {[list(s) for s in shapes]}"
        return ""

    def new_run(self, place: int) -> TensorrtRun:
        """See `Program.new_run`."""
        import tensorrt as trt

        if self._engine is None:
            raise RuntimeError("the program was closed")
        if self._alone:
            return self._runs[0]
        # From version 10 on, such a context is requested by a strategy, and is given the memory with its size.
        strategy = getattr(trt, "ExecutionContextAllocationStrategy", None)
        name = "create_execution_context" if strategy else "create_execution_context_without_device_memory"
        context = getattr(self._engine, name)(*([strategy.USER_MANAGED] if strategy else []))
        if context is None:
            raise EngineError(
                f"{self._where}: no room on the GPU to run the plan",
                why=self._log.told(),
                fix="stop other programs that use the GPU",
            )
        if self._runs and context.active_optimization_profile < 0:
            self._alone = True
            return self._runs[0]
        if place not in self._scratch:
            self._scratch[place] = self._device.allocate(self._size)
        scratch = self._scratch[place]
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(scratch.address, scratch.nbytes)
        else:
            context.device_memory = scratch.address
        self._runs.append(TensorrtRun(context, self._log))
        return self._runs[-1]

    def close(self) -> None:
        """See `Program.close`. The contexts go before their engine."""
        for run in self._runs:
            run.context = None
        self._engine = None


def lean_library(version: str, where: str) -> str:
    """The path of the lean runtime of the version that built a plan: in its package, else in a system folder.

    Raises NoPlan if there is none.
    """
    name = f"libnvinfer_lean.so.{version.split('.')[0]}"
    for package in ("tensorrt_lean_libs", "tensorrt_lean"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / name).is_file():
                return str(path)
    for folder in ("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib"):
        if (path := Path(folder) / name).is_file():
            return str(path)
    raise NoPlan(
        f"{where}: needs {name}",
        why="other versions run a version-compatible plan through the lean runtime of the version that built it",
        fix=f"pip install tensorrt-lean=={version}, or build a plan here",
    )


def room_of(record: PlanRecord) -> Room:
    """The sizes that a plan's profile allows."""
    p = record.profile
    batch, categories, shots = ((axis[0], axis[2]) for axis in (p.batch, p.categories, p.shots))
    return Room(batch, categories, shots, record.together)


def without(asked: Sequence[str], option: str) -> list[str]:
    """The options without `option` and its value."""
    at = list(asked).index(option) if option in asked else len(asked)
    return [*asked[:at], *asked[at + 2 :]]


def open_plan(
    bundle: Bundle,
    record: PlanRecord,
    plan: bytes,
    *,
    max_batch: int,
    graphs: bool = True,
    device: Device | None = None,
) -> Pipeline:
    """A pipeline on the GPU that runs `plan`, whose hash the caller has checked. Raises EngineError."""
    where = str(bundle.root / FOLDER / record.target)
    if device is None:
        from edge.engine.cuda import CudaDevice

        device = CudaDevice()
    program = TensorrtProgram(plan, record, where, rebuild_command(bundle, record.target, record.asked), device)
    m = bundle.manifest
    return Pipeline(
        device,
        program,
        room_of(record),
        m.frames,
        m.embedding,
        max_batch=max_batch,
        name=f"tensorrt-{record.tensorrt}-{actual_precision(record)}",
        anew=rebuild_command(bundle, record.target, without(record.asked, "--support")),
        graphs=graphs,
        warm=True,
    )


def open_tensorrt(bundle: Bundle, *, max_batch: int) -> Pipeline:
    """Open the bundle's best plan for this machine. Raises EngineError, saying why there is none and how to get one."""
    record, plan = chosen_plan(bundle)
    return open_plan(bundle, record, plan, max_batch=max_batch)


def chosen_plan(bundle: Bundle) -> tuple[PlanRecord, bytes]:
    """The record and the bytes of the best plan for this machine. Raises EngineError.

    A build may replace the plan after the bundle was opened, so that its hashes are those of the old plan. Then the
    bundle is read once more.
    """
    try:
        return choose(bundle, this_machine())
    except NoPlan:
        with locked(bundle.root):  # a build locks it from its first file to the manifest
            now = open_bundle(bundle.root)
            changed = now.manifest.files != bundle.manifest.files
            if not changed or now.manifest.files.get(GRAPH) != bundle.manifest.files.get(GRAPH):
                raise
            return choose(now, this_machine())
