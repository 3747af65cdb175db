"""Makes and loads CURVE keys, which decide who may publish and subscribe from another host.

    <dir>/own.key_secret     this party's key pair, readable by its owner only
    <dir>/peers/*.key        public keys: those a bound socket admits; the one a connecting socket expects

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
"""Unknown keys that are reported at most: a peer that makes a new key for every attempt must not fill the log."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One party's keys, as checked by `open_keys`."""

    public: bytes
    secret: bytes
    peers: Path
    _checks: list[_PeerCheck] = field(default_factory=list, compare=False, repr=False)

    def secure(self, socket: zmq.Socket[bytes], mode: str) -> None:
        """Set up encryption on a socket before it binds (as a server for the peers) or connects (to the one peer)."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        if mode == "bind":
            socket.curve_server = True
            socket.zap_domain = DOMAIN.encode()
            for check in self._checks:
                if check.context is socket.context:  # a socket can have only one monitor
                    watch(socket, check.failed)
            return
        known = sorted(self.peers.glob("*.key"))
        if len(known) != 1:
            raise SettingsError(
                f"{self.peers}: holds {len(known)} public keys",
                why="a connecting socket needs exactly one, that of the other side",
                fix="keep only that peer's .key in the folder",
            )
        socket.curve_serverkey = _public(known[0])

    @contextlib.contextmanager
    def guard(
        self, context: zmq.Context[zmq.Socket[bytes]], tell: Callable[[str], None] = lambda text: None
    ) -> Iterator[None]:
        """While open, bound sockets of the context admit the peers and nobody else.

        `tell` is called, in other threads, with a line about each peer that is turned away.
        """
        check = _PeerCheck(set(), self.peers, tell, context)
        check.read()
        if not check.known:
            raise SettingsError(
                f"{self.peers}: no usable public key, so nobody could connect",
                fix="copy them again from the other sides' own.key",
            )
        guard = ThreadAuthenticator(context)
        guard.start()
        self._checks.append(check)
        try:
            guard.configure_curve_callback(DOMAIN, check)
            yield
        finally:
            self._checks.remove(check)
            guard.stop()


def _public(path: Path) -> bytes:
    return _load(path, "public key", "copy it again from the other side's own.key")[0]


def _load(path: Path, what: str, fix: str) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
        for key in (public, secret):
            if key is not None and len(z85.decode(key)) != KEY_BYTES:
                raise ValueError(f"a key in it is not of {KEY_BYTES} bytes")
        return public, secret
    except Exception as e:  # pyzmq raises many kinds over a damaged file
        raise SettingsError(f"{path}: not a usable {what}", why=f"{type(e).__name__}: {e}", fix=fix) from None


@dataclass(frozen=True, slots=True)
class _PeerCheck:
    """Decides which peers are admitted, and reports those that are not."""

    known: set[bytes]
    peers: Path
    tell: Callable[[str], None]
    context: zmq.Context[zmq.Socket[bytes]] | None = None
    strangers: set[bytes] = field(default_factory=set)

    def read(self) -> None:
        """Take in the keys in the folder. Never raises: that would end the thread that lets peers in."""
        try:
            for path in self.peers.glob("*.key"):
                try:
                    self.known.add(_public(path))
                except SettingsError as e:  # a file half written or damaged: the other keys still count
                    self.tell(str(e))
        except OSError as e:  # too many open files, for example
            self.tell(f"{self.peers}: cannot be listed: {e.strerror}")

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a public key (z85) is admitted, also if it was added to the folder since the start."""
        if key not in self.known:
            self.read()
        if key not in self.known and len(self.strangers) < STRANGERS:
            self.strangers.add(key)
        if key in self.strangers - self.known:
            self.tell(f"turned away: a peer with the key {key.decode()}; its own.key is not in {self.peers}")
        return key in self.known

    def failed(self, address: str, who: str) -> None:
        """Report a peer that failed in the handshake; unknown keys are reported by `callback`."""
        if who:
            self.tell(f"turned away at {address}: {who}; docs/operate.md, 'Security', says what a client needs")


def open_keys(root: Path | str | None) -> Keys | None:
    """Load the keys in a folder; None for None. Raises SettingsError that names what is missing."""
    if root is None:
        return None
    root = Path(root)
    if (root / "engine").is_dir() and not (root / f"{OWN}.key_secret").exists():
        raise SettingsError(
            f"{root}: holds the keys of both sides", fix=f"name one side: {root / 'engine'} or {root / 'client'}"
        )
    if not root.is_dir():
        raise SettingsError(
            f"{root}: " + ("a file, not a folder of keys" if root.exists() else "no such folder"),
            why="--keys names the folder of one side, engine/ or client/",
            fix="haad-edge keys DIR makes both folders",
        )
    public, secret = _load(root / f"{OWN}.key_secret", "key pair", "haad-edge keys DIR makes one")
    if secret is None or not any((root / PEERS).glob("*.key")):
        raise SettingsError(
            f"{root}: no secret key, or no public key in {PEERS}/", fix="haad-edge keys DIR makes both sides"
        )
    return Keys(public, secret, root / PEERS)


def make_keys(root: Path) -> tuple[Path, Path]:
    """Make `root`/engine and `root`/client, each with the other's public key: both or neither.

    Raises SettingsError if one exists already, OutputError or OSError if they cannot be made.
    """
    sides = root / "engine", root / "client"
    for side in sides:
        if side.exists():
            raise SettingsError(
                f"{side}: exists already", why="keys that may be in use are not overwritten", fix="name a new folder"
            )
    ready_folder(root, "haad-edge keys")
    with naming(root):
        root.mkdir(parents=True, exist_ok=True)
        # Complete both sides before moving either into place: a half would be unusable, yet would not be overwritten.
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
