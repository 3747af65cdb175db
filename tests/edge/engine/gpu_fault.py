"""Breaks the GPU for one process, as a failing driver does: a kernel traps, and from then on every call fails.

As a process's `sitecustomize`, with BREAK_GPU_AT=FILE in its environment, it does so once FILE exists, and then writes
the driver's error code into it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from ctypes import byref
from pathlib import Path

PTX = b"""
.version 6.0
.target sm_70
.address_size 64
.visible .entry fault() { trap; ret; }
"""


def break_gpu() -> int:
    """Returns the code of the error that the context keeps. Through the driver alone, which leaves nothing to free."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, module, kernel = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    for done in (
        driver.cuInit(0),
        driver.cuDeviceGet(byref(device), 0),
        driver.cuDevicePrimaryCtxRetain(byref(context), device),
        driver.cuCtxSetCurrent(context),
        driver.cuModuleLoadData(byref(module), PTX),
        driver.cuModuleGetFunction(byref(kernel), module, b"fault"),
        driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None),
    ):
        if done:
            raise RuntimeError(f"the GPU could not be broken: error {done}")
    return int(driver.cuCtxSynchronize())


def _when_told(now: Path) -> None:
    while not now.exists():
        time.sleep(0.02)
    code = break_gpu()
    part = now.with_suffix(".part")
    part.write_text(str(code))
    part.replace(now)


if __name__ == "sitecustomize" and "BREAK_GPU_AT" in os.environ and "run" in sys.orig_argv:
    threading.Thread(target=_when_told, args=(Path(os.environ["BREAK_GPU_AT"]),), daemon=True).start()
