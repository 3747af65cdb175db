"""Describes the machine, and reads a process's CPU time and memory from the kernel."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu() -> str:
    """The processor's name, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    except OSError:
        name = platform.processor()
    return f"{name or platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def short(name: str) -> str:
    """A machine's name for use in file names: 'AMD EPYC, 2 cores' → 'epyc2'."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((?:r|tm)\)|@.*(?=,)", " ", name.lower()))
    plain = [w for w in words[:-1] if w not in ("amd", "intel", "cpu", "processor", "core", "with")]
    return f"{'-'.join(plain[:-1])}{plain[-1]}"


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its threads so far."""
    fields: list[str] = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident(pid: int | None = None) -> int:
    """Resident memory of a process (None: this one) now, in bytes."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
