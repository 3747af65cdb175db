"""Tells systemd, if that started this process, when the engine is ready, how it is, and that it is not hung.

    engine ── READY, STATUS, WATCHDOG ──► $NOTIFY_SOCKET ──► systemd: restarts an engine that falls silent

A GPU may hang without an error, and nothing inside the process can free it then. See sd_notify(3); with Type=notify and
WatchdogSec= in the unit, systemd ends the process and starts it anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping

from edge.runtime import Runtime

STATUS_S = 5.0
LONGEST = 1000
"""Characters of a status; systemd ignores a notification of more than 4096 bytes, and then its WATCHDOG too."""


def notify(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send one notification, if there is somebody to send it to. Never fails: the engine runs without systemd too."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(text.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def watchdog_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds of silence after which systemd ends this process; None: it does not watch."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    microseconds = int(text) if text.isdecimal() and pid == str(os.getpid()) else 0
    return microseconds / 1e6 or None


@contextlib.contextmanager
def supervised(runtime: Runtime) -> Iterator[None]:
    """Say that the engine is ready, and from then on how it is, and that it lives while it makes progress."""
    every = min(STATUS_S, (watchdog_s() or STATUS_S * 2) / 2)
    done = threading.Event()

    def tell() -> None:
        while True:
            alive = "\nWATCHDOG=1" if not runtime.hung else ""
            # An error's text may hold anything, such as a line break, which would end the status.
            text = "".join(c if c.isprintable() else " " for c in runtime.ready[1][:LONGEST])
            notify(f"STATUS={text}{alive}")
            if done.wait(every):
                return

    notify("READY=1")
    thread = threading.Thread(target=tell, name="systemd", daemon=True)
    if os.environ.get("NOTIFY_SOCKET"):
        thread.start()
    try:
        yield
    finally:
        done.set()
        notify("STOPPING=1")
