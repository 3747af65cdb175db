"""Parses endpoints, `pattern+bind|connect:address`, and opens their sockets.

`sub+bind:tcp://127.0.0.1:5555`, `pub+connect:ipc:///run/haad/poses`. An address that other hosts can reach needs
CURVE keys, or an explicit `allow_remote`.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket as socket_of_os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from edge.errors import HaadError, SettingsError
from edge.network.handshake import watch
from edge.network.keys import Keys, open_keys

PATTERNS = {
    "sub": zmq.SUB,
    "pull": zmq.PULL,
    "pub": zmq.XPUB,
    "push": zmq.PUSH,
    "router": zmq.ROUTER,
    "dealer": zmq.DEALER,
}
_GRAMMAR = re.compile(r"(?P<pattern>[a-z]+)\+(?P<mode>bind|connect):(?P<address>(?:tcp|ipc|inproc)://\S+)")
_PORT = re.compile(r"\*|[1-9][0-9]{0,4}")
_LOCAL = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):(\d+|\*)|(ipc|inproc)://.+")
SOCKET_MESSAGE_CAP = 16 << 20
"""libzmq disconnects a peer that sends a larger message. One that is smaller, but larger than allowed, is read, counted
and reported."""

HEARTBEAT_MS = 5000
LONGEST_MS = 2**31 - 1
"""The longest wait that ZeroMQ accepts; a negative one is infinite."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One parsed endpoint. `pub` opens an XPUB socket, so that its owner learns of subscriptions."""

    pattern: str
    mode: str
    address: str

    def __str__(self) -> str:
        return f"{self.pattern}+{self.mode}:{self.address}"

    @classmethod
    def parse(cls, text: str, allowed: tuple[str, ...] = tuple(PATTERNS), *, example: str = "") -> Endpoint:
        """Parse an endpoint. Raises SettingsError that names what is wrong with it and gives `example`."""
        fix = f"for example {example or f'{allowed[0]}+bind:tcp://127.0.0.1:5555'}"
        m = _GRAMMAR.fullmatch(text.strip()) if isinstance(text, str) else None
        if not m or m["pattern"] not in allowed:
            raise SettingsError(
                f"endpoint {text!r:.120} is not understood",
                why="the form is pattern+bind|connect:address, with pattern " + " or ".join(allowed),
                fix=fix,
            )
        if m["address"].startswith("tcp:"):
            after = m["address"].removeprefix("tcp://").rpartition("]")[2]  # colons of IPv6 are before it
            port = after.rpartition(":")[2] if ":" in after else ""
            if not _PORT.fullmatch(port) or (port != "*" and int(port) > 65535):
                raise SettingsError(
                    f"endpoint {text!r:.120}: " + (f"{port!r:.20} is not a port" if port else "the port is missing"),
                    why="a tcp:// address ends in :1 to :65535, or :* for a free one",
                    fix=fix,
                )
        return cls(m["pattern"], m["mode"], m["address"])

    @property
    def local(self) -> bool:
        """Whether only this host can reach the address."""
        return bool(_LOCAL.fullmatch(self.address))

    def check_reach(self, allow_remote: bool, keys: Keys | None = None) -> None:
        """Raise SettingsError if other hosts could reach this address without keys and without `allow_remote`."""
        if not (self.local or keys or allow_remote):
            raise SettingsError(
                f"endpoint {self} is reachable from other hosts without encryption or keys",
                why="anybody who reaches it could publish false poses or read the alerts",
                fix="use a 127.0.0.1 address, or --keys DIR (haad-edge keys makes them), or accept it: --allow-remote",
            )

    def _check_free(self) -> None:
        """Raise ZMQError EADDRINUSE if an ipc path is in use, as for a port; libzmq itself would take the path over."""
        if not self.address.startswith("ipc://"):
            return
        with socket_of_os.socket(socket_of_os.AF_UNIX, socket_of_os.SOCK_STREAM) as probe:
            probe.settimeout(1)
            with contextlib.suppress(OSError):
                probe.connect(self.address.removeprefix("ipc://"))
                raise zmq.ZMQError(zmq.EADDRINUSE)

    def open(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        hwm: int,
        keys: Keys | None = None,
        refused: Callable[[], None] | None = None,
    ) -> zmq.Socket[bytes]:
        """Open the socket, bound or connected, with at most `hwm` messages queued. Raises SettingsError if it cannot.

        `refused` is called, in another thread, if the other end refuses the connection.
        """
        socket = context.socket(PATTERNS[self.pattern])
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int("://[" in self.address))
        socket.set_hwm(hwm)
        if self.pattern == "push":  # otherwise it queues messages for a peer that may never come
            socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, SOCKET_MESSAGE_CAP)
        if self.mode == "connect":  # a host that loses power does not close its connections
            socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
            if refused:
                watch(socket, lambda address, who: refused())
        try:
            if keys:
                keys.secure(socket, self.mode)
            if self.mode == "bind":
                self._check_free()
                socket.bind(self.address)
            else:
                socket.connect(self.address)
        except SettingsError:
            socket.close(0)
            raise
        except zmq.ZMQError as e:
            socket.close(0)
            raise SettingsError(
                f"cannot {self.mode} {self.address}",
                why=str(e),
                fix="is another engine or record using it? docs/operate.md, 'Two on one host', says what each needs"
                if e.errno == zmq.EADDRINUSE
                else "check the address",
            ) from None
        return socket


def milliseconds(seconds: float) -> int:
    """A wait in ms for `poll`: 0 if it is over or not a number, and at most `LONGEST_MS`."""
    return math.ceil(min(max(0.0, 1000 * seconds), LONGEST_MS))


def no_answer(where: Endpoint, refused: threading.Event, what: str, why: str) -> HaadError:
    """The error of a client that waited in vain: nobody is there, or the other end has `refused` it."""
    if refused.is_set():
        return turned_away(where)
    fix = (
        "start an engine (haad-edge run --support DIR) or a recorder (haad-edge record --from ADDRESS); "
        "if it has keys, give this end the client's: --keys, or `keys`"
    )
    return HaadError(what, why=why, fix=fix)


def turned_away(where: Endpoint) -> HaadError:
    """The error of a client that the other end, at `where`, refuses."""
    return HaadError(
        f"refused at {where.address}",
        why="it has keys and this end none, or neither knows the other's; or it forwards to an engine that is gone",
        fix="use that engine's client folder: --keys, or `keys`; and run haad-edge doctor on its host",
    )


def open_alone(
    where: Endpoint, hwm: int, keys: Path | str | None, allow_remote: bool, refused: Callable[[], None] | None = None
) -> tuple[zmq.Socket[bytes], contextlib.ExitStack]:
    """Open a socket with a context of its own. Returns it, and a stack to close after it."""
    mine = open_keys(keys)
    where.check_reach(allow_remote, mine)
    with contextlib.ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        if mine and where.mode == "bind":
            stack.enter_context(mine.guard(context))
        return where.open(context, hwm=hwm, keys=mine, refused=refused), stack.pop_all()
