"""Finds what this machine has to run a plan with: asks the driver and the packages, without starting TensorRT.

Without a CUDA device TensorRT 8.6 ends the process when it is started, so the driver is always asked first.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first visible CUDA device. `driver` is the newest CUDA version that its driver supports.

    `release` is the driver's own version, like 550.54.15, if it can be read.
    """

    name: str
    capability: str
    driver: str
    release: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has. `problem` says why no plan can run here at all, or ''."""

    platform: str
    gpu: Gpu | None
    tensorrt: str | None
    pycuda: bool
    problem: str


def ask_driver(library: str = "libcuda.so.1") -> Gpu | str:
    """The first CUDA device, or why there is none."""
    try:
        driver = ctypes.CDLL(library)
        start = driver.cuInit
    except (OSError, AttributeError):
        return f"no NVIDIA driver: {library} not found"
    if code := start(0):
        return f"the NVIDIA driver finds no device (CUDA error {code})"
    device, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, 100, device):
        return "the NVIDIA driver finds no device"
    parts = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    driver.cuDriverGetVersion(ctypes.byref(version))
    served = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), ".".join(parts), served, driver_release())


def driver_release(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The release of the loaded NVIDIA kernel module, or '': a container may hide it."""
    try:
        found = re.search(r"Kernel Module\D.*?(\d+\.\d+(\.\d+)?)", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def tensorrt_version() -> tuple[str | None, str]:
    """TensorRT's version, or None and why its package cannot be loaded."""
    if importlib.util.find_spec("tensorrt") is None:
        return None, "TensorRT is not installed in this environment"
    try:
        return str(importlib.import_module("tensorrt").__version__), ""
    except Exception as e:  # a package without its libraries raises ImportError, OSError, or errors of its own
        return None, f"the package tensorrt cannot be loaded: {e!s:.200}"


def pycuda_problem() -> str:
    """Why pycuda cannot be used, or ''. It is loaded, which starts nothing: it may be compiled for another CUDA."""
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed in this environment"
    try:
        importlib.import_module("pycuda.driver")
    except Exception as e:  # as above
        return f"pycuda cannot be loaded: {e!s:.200}"
    return ""


@functools.cache
def this_machine() -> Machine:
    """This machine, examined once per process."""
    gpu = ask_driver()
    version, why = tensorrt_version()
    if isinstance(gpu, str):
        return Machine(platform.machine(), None, version, importlib.util.find_spec("pycuda") is not None, gpu)
    without = pycuda_problem()
    return Machine(platform.machine(), gpu, version, not without, why or without)
