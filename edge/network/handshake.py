"""Reports connections that fail in the handshake, which ZeroMQ retries in silence, or gives up.

Each watched socket has a thread that reads its events. It must keep reading: libzmq blocks all sockets of a context
when a monitor is not read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

_BROKEN_OFF, _PROTOCOL = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_ALL = _BROKEN_OFF | _PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_MONITOR_STOPPED
_WITHOUT = "a peer without keys, or one that closed the connection"
_WHO: dict[tuple[int, int], str] = {
    (_PROTOCOL, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): _WITHOUT,
    (_BROKEN_OFF, 0): _WITHOUT,  # the side that first sees the mismatch closes the connection
    (_PROTOCOL, zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "a peer that expects the key of another engine",
}


def watch(socket: zmq.Socket[bytes], failed: Callable[[str, str], None]) -> None:
    """Call `failed` with the address and a description of each peer that failed, until the socket is closed.

    The description is empty if the reason is not known at this end. To be called by the socket's owner before it binds
    or connects; `failed` is called in another thread.
    """
    monitor = socket.get_monitor_socket(_ALL)
    threading.Thread(target=_tell, args=(monitor, failed), name="handshakes", daemon=True).start()


def _tell(monitor: zmq.Socket[bytes], failed: Callable[[str, str], None]) -> None:
    with monitor, contextlib.suppress(zmq.ZMQError):  # raised when the context is terminated
        while True:
            event = recv_monitor_message(monitor)
            kind = int(event["event"])
            if kind == zmq.EVENT_MONITOR_STOPPED:
                return
            detail = int(event["value"]) if kind == _PROTOCOL else 0
            failed(event["endpoint"].decode(errors="replace"), _WHO.get((kind, detail), ""))
