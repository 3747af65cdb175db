"""Implements `edge.engine.device.Device` with CUDA: the only module that uses pycuda.

pycuda has no call for CUDA graphs, so they are made through the driver's own functions, on stream handles from pycuda.
A context belongs to the thread that opened it: use a CudaDevice in that thread alone.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edge.engine.device import Event, Graph, Memory, Stream
from edge.errors import EngineError
from edge.skeleton import Float

if TYPE_CHECKING:
    import pycuda.driver as cuda

R = TypeVar("R")
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not ordered with the default stream, which TensorRT warns of
_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED
WITHOUT = "with `engine: [tensorrt, onnx]` it goes on without the GPU"


def no_gpu(why: str) -> EngineError:
    """The error for a machine without a usable CUDA device."""
    return EngineError(
        "no GPU for the engine 'tensorrt'",
        why=why,
        fix=f"see that nvidia-smi lists one (on a Jetson: tegrastats); {WITHOUT}",
    )


def out_of_memory(why: str, lost: bool = False) -> EngineError:
    """The error for an allocation that does not fit; `lost` if work was already under way."""
    fix = f"stop other programs that use it, or build with smaller --batch and --support; {WITHOUT}"
    return EngineError("the GPU is out of memory", why=why, fix=fix, lost=lost)


def device_lost(what: str, error: Exception, memory: bool) -> EngineError:
    """The error for a failed driver call: the device is lost to this process, since a context keeps its errors."""
    why = f"{what}: {error}"
    if memory:
        return out_of_memory(why, lost=True)
    return EngineError(
        "the GPU is lost", why=why, fix=f"look for NVRM or Xid in dmesg, then start again; {WITHOUT}", lost=True
    )


class _Stay:
    """Lives as long as its thread."""


_THREAD = threading.local()


def stay_current(device: cuda.Device) -> None:
    """Make the primary context current in this thread, until the thread or the process ends.

    pycuda aborts the process if a context is still on its stack at the end, as it would be after an error or a loss. It
    releases a context that is dropped without `detach` with the wrong call, and warns.
    """
    if not hasattr(_THREAD, "stay"):
        context = device.retain_primary_context()
        context.push()
        _THREAD.stay = _Stay()
        weakref.finalize(_THREAD.stay, context.detach)


class CudaDevice:
    """The first visible GPU, through its primary context, which TensorRT shares. CUDA_VISIBLE_DEVICES picks another."""

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as e:
            raise EngineError(
                "pycuda cannot be loaded",
                why=str(e),
                fix="PATH=/usr/local/cuda/bin:$PATH pip install pycuda, where the driver is; see docs/jetson.md",
            ) from None
        self._cuda = cuda
        try:
            cuda.init()
            if not cuda.Device.count():
                raise no_gpu("the driver finds no device")
            device = cuda.Device(0)
            self.name, self.capability = device.name(), device.compute_capability()
            stay_current(device)
        except cuda.Error as e:
            raise (out_of_memory if isinstance(e, cuda.MemoryError) else no_gpu)(str(e)) from None
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._memory: list[cuda.DeviceAllocation] = []
        self._pinned: list[Float] = []
        self._streams: dict[int, cuda.Stream] = {}
        self._events: dict[int, cuda.Event] = {}
        self._graphs: set[int] = set()
        self._closed = False

    @property
    def toolkit(self) -> str:
        """The CUDA version that pycuda was compiled with."""
        return ".".join(map(str, self._cuda.get_version()[:2]))

    def free_memory(self) -> int:
        """Free device memory, in bytes."""
        return self._do("asking for the free memory", self._cuda.mem_get_info)[0]

    # ---- Device ------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> Memory:
        """See `Device.allocate`."""
        allocation = self._have(f"allocating {nbytes} bytes", self._cuda.mem_alloc, nbytes)
        self._memory.append(allocation)
        return Memory(int(allocation), nbytes)

    def pinned(self, shape: tuple[int, ...]) -> Float:
        """See `Device.pinned`. The array references the context, so it outlives `close`.

        Until then it is kept here, so that none is freed after a loss.
        """
        array = self._have("allocating pinned memory", self._cuda.pagelocked_empty, shape, np.float32)
        array.fill(0)
        self._pinned.append(array)
        return array

    def stream(self) -> Stream:
        """See `Device.stream`."""
        stream = self._do("making a stream", self._cuda.Stream, _NON_BLOCKING)
        self._streams[stream.handle] = stream
        return Stream(stream.handle)

    def event(self) -> Event:
        """See `Device.event`."""
        number = len(self._events)
        self._events[number] = self._do("making an event", self._cuda.Event, self._cuda.event_flags.DISABLE_TIMING)
        return Event(number)

    def copy_in(self, target: Memory, source: Float, stream: Stream) -> None:
        """See `Device.copy_in`."""
        self._do("copying in", self._cuda.memcpy_htod_async, target.address, source, self._streams[stream])

    def copy_out(self, target: Float, source: Memory, stream: Stream) -> None:
        """See `Device.copy_out`."""
        self._do("copying out", self._cuda.memcpy_dtoh_async, target, source.address, self._streams[stream])

    def record(self, event: Event, stream: Stream) -> None:
        """See `Device.record`."""
        self._do("recording an event", self._events[event].record, self._streams[stream])

    def wait(self, stream: Stream, event: Event) -> None:
        """See `Device.wait`."""
        self._do("queueing a wait", self._streams[stream].wait_for_event, self._events[event])

    def synchronize(self, event: Event) -> None:
        """See `Device.synchronize`. Other Python threads can run meanwhile."""
        self._do("waiting for a batch", self._events[event].synchronize)

    def done(self, event: Event) -> bool:
        """See `Device.done`."""
        return self._do("asking for a batch", self._events[event].query)

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph | None:
        """See `Device.capture`. A driver or engine that cannot capture costs only speed, so it is not an error."""
        try:
            begin, end, instantiate, destroy = (
                getattr(self._driver, f"cu{name}")
                for name in ("StreamBeginCapture_v2", "StreamEndCapture", "GraphInstantiateWithFlags", "GraphDestroy")
            )
        except AttributeError:  # a driver from before CUDA 11.4
            return None
        handle, graph, ready = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
        if begin(handle, ctypes.c_int(_RELAXED)):
            return None
        refused = False
        try:
            enqueue()
        except EngineError:
            refused = True
        finally:
            code = end(handle, ctypes.byref(graph))
        if code or not graph.value:
            return None
        code = 1 if refused else instantiate(ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        destroy(graph)
        if code or not ready.value:
            return None
        self._graphs.add(ready.value)
        return Graph(ready.value)

    def replay(self, graph: Graph, stream: Stream) -> None:
        """See `Device.replay`."""
        if code := self._driver.cuGraphLaunch(ctypes.c_void_p(graph), ctypes.c_void_p(stream)):
            raise device_lost("launching a graph", RuntimeError(self._text(code)), memory=code == 2)

    def forget(self, graph: Graph) -> None:
        """See `Device.forget`."""
        self._graphs.discard(graph)
        self._driver.cuGraphExecDestroy(ctypes.c_void_p(graph))

    def close(self) -> None:
        """See `Device.close`. Do not call it after a loss: the driver then cleans up what is left."""
        if self._closed:
            return
        self._closed = True
        self._do("waiting for the device", self._cuda.Context.synchronize)
        for graph in list(self._graphs):
            self.forget(Graph(graph))
        for allocation in self._memory:
            self._do("freeing memory", allocation.free)
        self._memory.clear()
        self._pinned.clear()
        self._events.clear()
        self._streams.clear()

    # ---- inside ------------------------------------------------------------------------------------------------

    def _do(self, what: str, call: Callable[..., R], *given: Any) -> R:
        try:
            return call(*given)
        except self._cuda.Error as e:
            raise device_lost(what, e, isinstance(e, self._cuda.MemoryError)) from None

    def _have(self, what: str, call: Callable[..., R], *given: Any) -> R:
        """Allocate. Out of memory is not a loss: nothing was started, so everything else can still be released."""
        try:
            return call(*given)
        except self._cuda.MemoryError as e:
            raise out_of_memory(f"{what}: {e}") from None
        except self._cuda.Error as e:
            raise device_lost(what, e, memory=False) from None

    def _text(self, code: int) -> str:
        name = ctypes.c_char_p()
        if self._driver.cuGetErrorName(ctypes.c_int(code), ctypes.byref(name)) or name.value is None:
            return f"CUDA error {code}"
        return name.value.decode(errors="replace")
