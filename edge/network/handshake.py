"""Connections that come to nothing: told, since ZeroMQ tries again in silence, or not at all.

A thread for each socket that is watched. It must read: libzmq holds up all sockets of a context for who does not.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

_BROKEN_OFF, _PROTOCOL = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_ALL = _BROKEN_OFF | _PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_MONITOR_STOPPED
_WITHOUT = "a peer without keys, or that broke off"
_WHO: dict[tuple[int, int], str] = {
    (_PROTOCOL, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): _WITHOUT,
    (_BROKEN_OFF, 0): _WITHOUT,  # who sees it first, that the other has keys, breaks off
    (_PROTOCOL, zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "a peer that expects the key of another engine",
}


def watch(socket: zmq.Socket[bytes], failed: Callable[[str, str], None]) -> None:
    """Call `failed` with the address and, in words, who a bound socket did not let in, until the socket is closed.

    The words are empty where the reason is not known from here. To be called by the socket's owner before it binds or
    connects; `failed` is called in another thread.
    """
    monitor = socket.get_monitor_socket(_ALL)
    threading.Thread(target=_tell, args=(monitor, failed), name="handshakes", daemon=True).start()


def _tell(monitor: zmq.Socket[bytes], failed: Callable[[str, str], None]) -> None:
    with monitor, contextlib.suppress(zmq.ZMQError):  # the context ends
        while True:
            event = recv_monitor_message(monitor)
            kind = int(event["event"])
            if kind == zmq.EVENT_MONITOR_STOPPED:
                return
            detail = int(event["value"]) if kind == _PROTOCOL else 0
            failed(event["endpoint"].decode(errors="replace"), _WHO.get((kind, detail), ""))
