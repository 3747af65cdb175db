"""Whether ONNX Runtime can be loaded here at all. Where loading it would end the process, an error comes first.

Up to 1.26 it counts the CPUs of an Arm machine wrongly where some are offline, as in most power modes of a Jetson, and
writes beyond an array while it is loaded (its issues 24092 and 28301). Its wheels abort then.
"""

from __future__ import annotations

import functools
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from edge.errors import EngineError

SOUND = (1, 27)
"""The version that counts them right. It needs Python 3.11."""
OFFLINE = Path("/sys/devices/system/cpu/offline")


@functools.cache
def check_loading() -> None:
    """Raise EngineError if loading ONNX Runtime would end this process. Only where it may, that is tried in another."""
    version = _installed()
    if platform.machine() != "aarch64" or tuple(int(n) for n in re.findall(r"\d+", version)[:2]) >= SOUND:
        return
    done = subprocess.run([sys.executable, "-c", "import onnxruntime"], capture_output=True)
    if done.returncode < 0:
        sound = ".".join(map(str, SOUND))
        raise EngineError(
            " ".join(["ONNX Runtime", *version.split(), "ends the process when it is loaded here"]),
            why=f"before {sound} it does that on Arm machines with offline CPUs{_offline()}",
            fix="bring all CPUs online, on a Jetson with sudo nvpmodel -m 0; "
            f"or, with Python 3.11 or later: pip install 'onnxruntime>={sound}'",
        )


def _installed() -> str:
    """The version of the package onnxruntime; '' if another package brings the module."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return ""


def _offline() -> str:
    try:
        numbers = OFFLINE.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f"; here {numbers} are offline" if numbers else ""
