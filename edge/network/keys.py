"""CURVE keys: who may publish and subscribe from another host.

    <dir>/own.key_secret     this party's key pair, readable by its owner only
    <dir>/peers/*.key        public keys: whom a bound socket lets in; the one a connecting socket expects

`haad-edge keys DIR` makes a matching pair of such folders, one for the engine and one for its clients.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from edge.errors import SettingsError
from edge.network.handshake import watch
from edge.outputs import naming, ready_folder

DOMAIN, KEY_BYTES = "haad", 32
OWN, PEERS = "own", "peers"
STRANGERS = 100
"""Of so many keys that are turned away it is told: who makes a new one for each try must not fill a log."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One party's keys, checked when opened with `open_keys`."""

    public: bytes
    secret: bytes
    peers: Path
    _doors: list[_Door] = field(default_factory=list, compare=False, repr=False)

    def secure(self, socket: zmq.Socket[bytes], mode: str) -> None:
        """Encrypt a socket before it binds (as the server, for the peers only) or connects (to the one peer)."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        if mode == "bind":
            socket.curve_server = True
            socket.zap_domain = DOMAIN.encode()
            for door in self._doors:
                if door.context is socket.context:  # a socket has one watcher
                    watch(socket, door.failed)
            return
        known = sorted(self.peers.glob("*.key"))
        if len(known) != 1:
            raise SettingsError(
                f"{self.peers}: {len(known)} public keys",
                why="a connecting socket must know the one key of the other side",
                fix="keep only that peer's .key in the folder",
            )
        socket.curve_serverkey = _public(known[0])

    @contextlib.contextmanager
    def guard(
        self, context: zmq.Context[zmq.Socket[bytes]], tell: Callable[[str], None] = lambda text: None
    ) -> Iterator[None]:
        """While open, bound sockets of the context let in the peers and nobody else.

        `tell` gets a line about each that is turned away, in threads of their own.
        """
        door = _Door(_known(self.peers), self.peers, tell, context)
        guard = ThreadAuthenticator(context)
        guard.start()
        self._doors.append(door)
        try:
            guard.configure_curve_callback(DOMAIN, door)
            yield
        finally:
            self._doors.remove(door)
            guard.stop()


def _known(peers: Path) -> set[bytes]:
    return {_public(path) for path in peers.glob("*.key")}


def _public(path: Path) -> bytes:
    try:
        key = zmq.auth.load_certificate(path)[0]
        if len(z85.decode(key)) != KEY_BYTES:
            raise ValueError(f"{key!r} is not of {KEY_BYTES} bytes")
        return key
    except (OSError, ValueError) as e:
        raise SettingsError(
            f"{path}: no usable public key", why=str(e), fix="copy it anew from the other side's own.key"
        ) from None


@dataclass(frozen=True, slots=True)
class _Door:
    known: set[bytes]
    peers: Path
    tell: Callable[[str], None]
    context: zmq.Context[zmq.Socket[bytes]] | None = None
    strangers: set[bytes] = field(default_factory=set)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a public key (z85) is let in; one that was added since, too."""
        if key not in self.known:
            for path in self.peers.glob("*.key"):
                try:
                    self.known.add(_public(path))
                except SettingsError as e:  # a file half written, or broken: the others hold
                    self.tell(str(e))
        if key not in self.known and len(self.strangers) < STRANGERS:
            self.strangers.add(key)
        if key in self.strangers - self.known:
            self.tell(f"turned away: a peer with the key {key.decode()}; its own.key is not in {self.peers}")
        return key in self.known

    def failed(self, address: str, who: str) -> None:
        """Told of a peer that came no further than the handshake; `callback` tells of unknown keys."""
        if who:
            self.tell(f"turned away at {address}: {who}; docs/operate.md, 'Security', says what a client must have")


def open_keys(root: Path | str | None) -> Keys | None:
    """The keys in a folder, None for None. Raises SettingsError naming the missing file."""
    if root is None:
        return None
    root = Path(root)
    if (root / "engine").is_dir() and not (root / f"{OWN}.key_secret").exists():
        raise SettingsError(f"{root}: keys of both sides", fix=f"name one: {root / 'engine'} or {root / 'client'}")
    if not root.is_dir():
        raise SettingsError(
            f"{root}: " + ("a file, not a folder of keys" if root.exists() else "no such folder"),
            why="--keys names the folder of one side, engine/ or client/",
            fix="haad-edge keys DIR makes both",
        )
    path = root / f"{OWN}.key_secret"
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as e:
        raise SettingsError(f"{path}: no usable key pair", why=str(e), fix="haad-edge keys DIR makes one") from None
    if secret is None or not any((root / PEERS).glob("*.key")):
        raise SettingsError(f"{root}: no secret key, or nobody in {PEERS}/", fix="haad-edge keys DIR makes both sides")
    return Keys(public, secret, root / PEERS)


def make_keys(root: Path) -> tuple[Path, Path]:
    """Make `root`/engine and `root`/client, each knowing the other: both or none. Raises SettingsError if one is there
    already, OutputError or OSError if they cannot be made.
    """
    sides = root / "engine", root / "client"
    for side in sides:
        if side.exists():
            raise SettingsError(
                f"{side}: already there", why="keys in use are not overwritten", fix="name a new folder"
            )
    ready_folder(root, "haad-edge keys")
    with naming(root):
        root.mkdir(parents=True, exist_ok=True)
        # Both sides are whole before one is in its place: half of them would be refused, and not overwritten either.
        with tempfile.TemporaryDirectory(prefix=".haad-", dir=root) as folder:
            made = [Path(folder) / side.name for side in sides]
            for side in made:
                (side / PEERS).mkdir(parents=True)
                side.chmod(0o700)
                _, secret = zmq.auth.create_certificates(side, OWN)
                Path(secret).chmod(0o600)
            for mine, other in (made, made[::-1]):
                (mine / PEERS / f"{other.name}.key").write_bytes((other / f"{OWN}.key").read_bytes())
            with contextlib.ExitStack() as undo:
                for new, side in zip(made, sides, strict=True):
                    new.rename(side)
                    undo.callback(side.rename, new)
                undo.pop_all()
    return sides
