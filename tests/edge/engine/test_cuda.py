"""What of the CUDA device can be seen without one: its context comes off pycuda's stack, and what was lost stays."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.engine.cuda import CudaDevice, stay_current
from edge.errors import EngineError

IN_THE_END = """
import sys
from edge.engine.{module} import {name}

class Thing:
    def retain_primary_context(self):
        return self
    def push(self):
        print("pushed")
    def detach(self):
        print("detached")
    def __del__(self):
        print("destroyed")

{name}(Thing())
sys.exit("an error")
"""


def in_the_end(module: str, name: str) -> list[str]:
    script = IN_THE_END.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.strip() == "an error"
    return done.stdout.split()


class Context:
    """A pycuda context that knows which thread did what to it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def retain_primary_context(self) -> Context:
        self.seen.append(("retain", threading.get_ident()))
        return self

    def push(self) -> None:
        self.seen.append(("push", threading.get_ident()))

    def detach(self) -> None:
        self.seen.append(("detach", threading.get_ident()))


def test_a_thread_has_one_context_and_takes_it_off_before_it_ends() -> None:
    context: Any = Context()

    def work() -> None:
        stay_current(context)
        stay_current(context)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [(what, who) for what, who in context.seen] == [(w, thread.ident) for w in ("retain", "push", "detach")]


def test_an_error_leaves_no_context_on_the_stack() -> None:
    """pycuda would abort the process for it."""
    assert in_the_end("cuda", "stay_current")[:2] == ["pushed", "detached"]


def test_what_was_lost_is_never_destroyed() -> None:
    assert in_the_end("pipeline", "abandon") == []


class Error(Exception):
    """pycuda's."""


class NoMemory(Error):
    """Its MemoryError."""


class Array(np.ndarray[Any, Any]):
    """One that a weak reference can be had to."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """pycuda's driver as far as a device needs it to begin, and to end; `full`: the calls that there is no room for."""
    found: Any = ModuleType("pycuda.driver")
    found.full, found.freed = set[str](), 0

    def room(name: str) -> None:
        if name in found.full:
            raise NoMemory(f"{name} failed: out of memory")

    class Device(Context):
        count = staticmethod(lambda: 1)

        def __init__(self, number: int) -> None:
            super().__init__()

        def name(self) -> str:
            return "Orin"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 7

        def retain_primary_context(self) -> Context:
            room("cuDevicePrimaryCtxRetain")
            return super().retain_primary_context()

    class Allocation(int):
        def free(self) -> None:
            found.freed += 1

    def mem_alloc(nbytes: int) -> Allocation:
        room("cuMemAlloc")
        return Allocation(4096)

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any) -> Any:
        room("cuMemHostAlloc")
        return np.empty(shape, dtype).view(Array)

    found.Error, found.MemoryError, found.Device, found.init = Error, NoMemory, Device, lambda: None
    found.mem_alloc, found.pagelocked_empty = mem_alloc, pagelocked_empty
    found.Context = SimpleNamespace(synchronize=lambda: None)
    package: Any = ModuleType("pycuda")
    package.driver = found
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", found)
    monkeypatch.setattr("edge.engine.cuda.ctypes.CDLL", lambda name: None)
    monkeypatch.setattr("edge.engine.cuda._THREAD", threading.local())
    return found  # type: ignore[no-any-return]


def test_no_room_for_a_context_is_no_missing_gpu(driver: Any) -> None:
    driver.full.add("cuDevicePrimaryCtxRetain")
    with pytest.raises(
        EngineError, match=r"the GPU is out of memory: cuDevicePrimaryCtxRetain.*stop other programs that use it"
    ):
        CudaDevice()


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemHostAlloc"])
def test_no_room_for_memory_is_no_loss(driver: Any, call: str) -> None:
    """What is there still works, and can be given back."""
    device = CudaDevice()
    device.allocate(8)
    driver.full.add(call)
    with pytest.raises(EngineError, match="the GPU is out of memory: allocating") as e:
        device.allocate(8) if call == "cuMemAlloc" else device.pinned((2,))
    assert not e.value.lost
    device.close()
    assert driver.freed == 1


def test_pinned_memory_stays_until_the_device_is_closed(driver: Any) -> None:
    """After a loss it is not, and to give pinned memory back is a call into the driver."""
    device = CudaDevice()
    seen = weakref.ref(device.pinned((2, 3)))
    gc.collect()
    assert seen() is not None and not seen().any()  # type: ignore[union-attr]
    device.close()
    gc.collect()
    assert seen() is None
