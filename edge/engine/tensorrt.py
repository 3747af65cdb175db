"""A TensorRT plan behind `edge.engine.device.Program`, by the calls that TensorRT 8.5 to 11 have in common.

    engine.json ─fits?─► engine.plan ─sha256?─► Runtime ─► engine ─name, inputs, outputs?─► contexts ─► Pipeline

A plan is native code once it is deserialised, so its bytes are checked first and the very same bytes are used. What a
version lacks is found by name; versions are compared only for plans, which run in the one that built them.
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

from edge.bundle import GRAPH, Bundle, alone, open_bundle
from edge.engine.device import Device, Memory, Room, Stream
from edge.engine.machine import this_machine
from edge.engine.pipeline import Pipeline
from edge.engine.plans import choose
from edge.engine.record import FOLDER, PlanRecord, again, computed
from edge.errors import BundleError, EngineError, NoPlan

if TYPE_CHECKING:
    import tensorrt as trt

R = TypeVar("R")
INPUTS = ("joints", "visible", "support", "support_mask")
OUTPUTS = ("embedding", "distance")
OUT_OF_MEMORY = re.compile(r"out ?of ?memory|bad_alloc", re.IGNORECASE)
"""As TensorRT (OutOfMemory), CUDA ("out of memory") and C++ name it in TensorRT's log."""


def name_of(graph: str) -> str:
    """A plan's own name: it carries no other data of ours, and the name comes back from the engine."""
    return f"haad-{graph[:16]}"


@functools.cache
def make_log() -> Any:
    """A logger that keeps the last errors, for the text of ours, and prints nothing. TensorRT holds on to its first.

    So one logger hears of everything in a process, and what was told of one failure must not be told of the next.
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
            """The errors since it was last asked, in one line."""
            text = textwrap.shorten("; ".join(self.lines), 400, placeholder=" …")
            self.lines.clear()
            return text or "TensorRT gave no reason"

    return Log()


def start(make: Callable[[Any], R], log: Any) -> R:
    """A Runtime or a Builder. Where TensorRT cannot start, its bindings raise TypeError over an empty pointer."""
    try:
        return make(log)
    except TypeError as e:
        why = f"{e}; {log.told()}" if log.lines else str(e)
        raise EngineError("TensorRT cannot be started", why=why, fix="haad-edge doctor") from None


class TensorrtRun:
    """One execution context, without memory of its own to compute in."""

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
                raise EngineError(f"TensorRT refuses the place of {name}", why=self._log.told())

    def enqueue(self, stream: Stream) -> None:
        """See `Run.enqueue`."""
        if not self._open().execute_async_v3(stream):
            raise EngineError("the GPU is lost", why=f"TensorRT failed on a batch: {self._log.told()}", lost=True)

    def _open(self) -> trt.IExecutionContext:
        if self.context is None:
            raise RuntimeError("the program was closed")
        return self.context


class TensorrtProgram:
    """A plan, ready to run. Open a CudaDevice in the same thread first: TensorRT takes its context.

    Every run is an execution context of its own, since a CUDA graph relies on the state of the one it was captured of
    (NVIDIA/TensorRT issue 3798). Those of one place compute one after the other, so one piece of memory serves them
    all. In TensorRT 8.5 the profile of a plan belongs to one context: there all runs are the same one, with the memory
    of the place that was asked for first, and no graph is captured.
    """

    def __init__(self, plan: bytes, record: PlanRecord, where: str, fix: str, device: Device) -> None:
        import tensorrt as trt

        self._log = make_log()
        self._runtime = start(trt.Runtime, self._log)
        loader = self._runtime
        if record.version_compatible and record.tensorrt != trt.__version__:
            # Versions before 8.6 have no such call; `plans.misfit` lets no such plan near them.
            loader = getattr(self._runtime, "load_runtime")(lean_library(record.tensorrt, where))  # noqa: B009
        engine = loader.deserialize_cuda_engine(plan) if loader else None
        if engine is None:
            why = self._log.told()
            if OUT_OF_MEMORY.search(why):  # of which a new plan would be no cure
                raise EngineError(
                    f"{where}: no room on the GPU to load the plan", why=why, fix="end what else uses the GPU"
                )
            raise NoPlan(f"{where}: TensorRT {trt.__version__} refuses the plan", why=why, fix=fix)
        if engine.name != name_of(record.graph):
            raise NoPlan(
                f"{where}: the plan is named '{engine.name}'",
                why=f"{name_of(record.graph)} was built of the graph beside it",
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
        """What of the engine's inputs, outputs and profile is not as recorded, or ''."""
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
            return f"it takes {found['in']} and gives {found['out']}"
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
        # From 10 on one asks for it by a strategy, and hands the memory over with its size.
        strategy = getattr(trt, "ExecutionContextAllocationStrategy", None)
        name = "create_execution_context" if strategy else "create_execution_context_without_device_memory"
        context = getattr(self._engine, name)(*([strategy.USER_MANAGED] if strategy else []))
        if context is None:
            raise EngineError(
                f"{self._where}: no room on the GPU to run the plan",
                why=self._log.told(),
                fix="end what else uses the GPU",
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
        """See `Program.close`: the contexts before their engine."""
        for run in self._runs:
            run.context = None
        self._engine = None


def lean_library(version: str, where: str) -> str:
    """The lean runtime of the version that built a plan: from its package, or else as the system's loader finds it."""
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
        why="a version-compatible plan runs elsewhere through the lean runtime of the version that built it",
        fix=f"pip install tensorrt-lean=={version}, or build a plan here",
    )


def room_of(record: PlanRecord) -> Room:
    """What the plan's profile has room for."""
    p = record.profile
    batch, categories, shots = ((axis[0], axis[2]) for axis in (p.batch, p.categories, p.shots))
    return Room(batch, categories, shots, record.together)


def without(asked: Sequence[str], option: str) -> list[str]:
    """The options but for one that has a value."""
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
    """A pipeline on the GPU that runs `plan`, whose hash was compared. Raises EngineError."""
    where = str(bundle.root / FOLDER / record.target)
    if device is None:
        from edge.engine.cuda import CudaDevice

        device = CudaDevice()
    program = TensorrtProgram(plan, record, where, again(bundle, record.target, record.asked), device)
    m = bundle.manifest
    return Pipeline(
        device,
        program,
        room_of(record),
        m.frames,
        m.embedding,
        max_batch=max_batch,
        name=f"tensorrt-{record.tensorrt}-{computed(record)}",
        anew=again(bundle, record.target, without(record.asked, "--support")),
        graphs=graphs,
        warm=True,
    )


def open_tensorrt(bundle: Bundle, *, max_batch: int) -> Pipeline:
    """The bundle's best plan for this machine. Raises EngineError saying why there is none and how to get one."""
    record, plan = chosen_plan(bundle)
    return open_plan(bundle, record, plan, max_batch=max_batch)


def chosen_plan(bundle: Bundle) -> tuple[PlanRecord, bytes]:
    """The record and the bytes of the best plan for this machine. Raises EngineError or BundleError.

    A build may replace them after the bundle was opened: its hashes are then those of the plan before, and the bundle
    is read once more.
    """
    try:
        record = choose(bundle, this_machine())
        return record, bundle.read(f"{FOLDER}/{record.target}/{record.file}")
    except (NoPlan, BundleError):
        with alone(bundle.root):  # a build holds it from its first file to the manifest
            now = open_bundle(bundle.root)
            changed = now.manifest.files != bundle.manifest.files
            if not changed or now.manifest.files.get(GRAPH) != bundle.manifest.files.get(GRAPH):
                raise
            record = choose(now, this_machine())
            return record, now.read(f"{FOLDER}/{record.target}/{record.file}")
