"""CURVE: with keys poses pass, without or with others they do not."""

from __future__ import annotations

import contextlib
import errno
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from edge.client import AlertSubscriber, PosePublisher
from edge.commands.record import subscribed
from edge.errors import HaadError, SettingsError
from edge.events import Status
from edge.ingest.source import ZmqSource
from edge.ingest.tap import Tap
from edge.network.endpoint import Endpoint
from edge.network.keys import STRANGERS, _PeerCheck, make_keys, open_keys
from edge.network.sink import ZmqSink
from edge.wire import Limits, decode_pose


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys") / "site")


def knock(source: ZmqSource, address: str, keys: Path | None, wait: float) -> list[list[bytes]]:
    """What the source receives while a publisher with these keys waits to be let in and sends."""

    def come() -> None:
        with contextlib.suppress(HaadError), PosePublisher(f"pub+connect:{address}", stream="cam", keys=keys) as camera:
            camera.wait(wait)
            camera.send([1], np.zeros((1, 15, 3)))

    camera = threading.Thread(target=come)
    camera.start()
    found: list[list[bytes]] = []
    while camera.is_alive() and not found:
        found += source.receive(0.05)
    camera.join()
    return found + source.receive(0.05)


def test_only_peers_are_let_in(folders: tuple[Path, Path], tmp_path: Path) -> None:
    engine, client = folders
    stranger, second = (make_keys(tmp_path / name)[1] for name in ("stranger", "second"))
    (second / "peers" / "engine.key").write_bytes((client / "peers" / "engine.key").read_bytes())
    engine = Path(shutil.copytree(engine, tmp_path / "engine"))
    (engine / "peers" / "a_second.key").write_bytes((second / "own.key").read_bytes())
    # The stranger knows the engine's public key, but the engine does not know the stranger's.
    (stranger / "peers" / "engine.key").write_bytes((client / "peers" / "engine.key").read_bytes())
    keys = open_keys(engine)
    assert keys is not None
    address = f"ipc://{tmp_path}/in"
    with contextlib.ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        told: list[str] = []
        stack.enter_context(keys.guard(context, told.append))
        source = ZmqSource(context, [Endpoint.parse(f"sub+bind:{address}")], 100, keys)
        stack.callback(source.close)
        assert knock(source, address, None, 0.5) == []
        told.clear()
        assert knock(source, address, stranger, 0.5) == []
        public = zmq.auth.load_certificate(stranger / "own.key")[0].decode()
        named = {text for text in told if "broke off" not in text}
        assert len(named) == 1 and public in min(named) and str(keys.peers) in min(named)
        told.clear()
        (engine / "peers" / "a_late_one.key").write_bytes((stranger / "own.key").read_bytes())
        for known in (client, second, stranger):
            (parts,) = knock(source, address, known, 20)
            assert decode_pose(parts, Limits()).stream == "cam"
        assert not told


@pytest.mark.parametrize("lacks", ["keys", "the engine's key", "a key that the engine knows"])
def test_both_sides_are_told_of_who_is_not_let_in(folders: tuple[Path, Path], tmp_path: Path, lacks: str) -> None:
    engine, client = folders
    theirs = make_keys(tmp_path / "other")[1]
    if lacks == "a key that the engine knows":
        (theirs / "peers" / "engine.key").write_bytes((client / "peers" / "engine.key").read_bytes())
    keys = open_keys(engine)
    assert keys is not None
    poses, alerts = f"ipc://{tmp_path}/in", f"ipc://{tmp_path}/out"
    mine = None if lacks == "keys" else theirs
    told, came = [], threading.Event()  # type: ignore[var-annotated]

    def tell(text: str) -> None:
        told.append(text)
        came.set()

    with contextlib.ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        stack.enter_context(keys.guard(context, tell))
        stack.callback(ZmqSource(context, [Endpoint.parse(f"sub+bind:{poses}")], 100, keys).close)
        stack.callback(ZmqSink(context, [Endpoint.parse(f"pub+bind:{alerts}")], 100, keys).close)
        with PosePublisher(f"pub+connect:{poses}", stream="cam", keys=mine) as camera:
            assert camera._refused.wait(20) and came.wait(20)
            with pytest.raises(HaadError, match=r"refused at ipc://.*/in.*--keys"):
                camera.wait(0.01)
        with AlertSubscriber(f"sub+connect:{alerts}", keys=mine, offline_after=0.01) as listener:
            assert listener._refused.wait(20)
            status = listener.receive(20)
            assert isinstance(status, Status) and status.state == "offline" and "refused at" in status.reason
            with pytest.raises(HaadError, match=r"refused at ipc://.*/out"):
                listener.wait(0.01)
    said = {
        "keys": "a peer without keys",
        "the engine's key": "expects the key of another engine",
        "a key that the engine knows": "its own.key is not in",
    }
    assert said[lacks] in told[0]


def test_two_guards_of_the_same_keys_watch_their_own_sockets(folders: tuple[Path, Path], tmp_path: Path) -> None:
    keys, before = open_keys(folders[0]), set(threading.enumerate())
    assert keys is not None
    with contextlib.ExitStack() as stack:
        for name in "ab":
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            stack.callback(context.term)
            stack.enter_context(keys.guard(context))
            stack.callback(ZmqSource(context, [Endpoint.parse(f"sub+bind:ipc://{tmp_path}/{name}")], 100, keys).close)
        watching = [t for t in threading.enumerate() if t not in before and t.name == "handshakes"]
        assert len(watching) == 2
    for thread in watching:
        thread.join(20)
        assert not thread.is_alive()


def test_poses_go_on_to_peers_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    engine, client = folders
    keys = open_keys(engine)
    assert keys is not None
    sent, address = b"pose/cam\0frame", f"ipc://{tmp_path}/out"

    def heard(sink: ZmqSink, keys: Path | None, wait: float) -> list[list[bytes]]:
        """What a recorder with these keys hears of a tap that passes poses on as long as somebody listens."""
        tap = Tap(sink)
        with subscribed(f"sub+connect:{address}", "cam", keys, False) as poses:
            until, found = time.monotonic() + wait, []
            while not found and time.monotonic() < until:
                if tap.listening(time.monotonic()):
                    tap.send([sent])
                found += poses.receive(0.02)
        return found

    with contextlib.ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        stack.enter_context(keys.guard(context))
        sink = ZmqSink(context, [Endpoint.parse(f"pub+bind:{address}")], 100, keys)
        stack.callback(sink.close)
        assert heard(sink, None, 0.5) == []
        assert heard(sink, client, 20)[0] == [sent]


@pytest.mark.parametrize("text", ["no key", 'metadata\ncurve\n    public-key = "abc"\n'], ids=["none", "short"])
def test_a_peer_s_file_that_holds_no_key_is_named_and_only_that_one_is_not_let_in(
    folders: tuple[Path, Path], tmp_path: Path, text: str
) -> None:
    side, told = tmp_path / "side", list[str]()
    shutil.copytree(folders[0], side)
    (side / "peers" / "another.key").write_text(text)
    keys = open_keys(side)
    assert keys is not None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with keys.guard(context, told.append):
        (line,) = told
        assert "another.key: not a usable public key" in line and "copy it again" in line
    (side / "peers" / "client.key").unlink()
    with (
        context.socket(zmq.SUB) as socket,
        pytest.raises(SettingsError, match=r"another\.key: not a usable public key"),
    ):
        keys.secure(socket, "connect")
    with (
        pytest.raises(SettingsError, match="peers: no usable public key, so nobody could connect"),
        keys.guard(context),
    ):
        pass
    context.term()


def test_the_folder_of_both_sides_is_not_one_side_s(folders: tuple[Path, Path]) -> None:
    with pytest.raises(SettingsError, match=r"keys of both sides.*engine or .*client"):
        open_keys(folders[0].parent)
    assert open_keys(str(folders[1])) == open_keys(folders[1])


def test_with_keys_an_address_may_be_reached_from_other_hosts(folders: tuple[Path, Path]) -> None:
    remote = Endpoint.parse("sub+bind:tcp://0.0.0.0:5555")
    with pytest.raises(SettingsError, match="--keys"):
        remote.check_reach(False)
    remote.check_reach(False, open_keys(folders[0]))


def test_secrets_are_for_their_owner_only_and_never_overwritten(folders: tuple[Path, Path]) -> None:
    assert [side.stat().st_mode & 0o777 for side in folders] == [0o700, 0o700]
    for side in folders:
        assert (side / "own.key_secret").stat().st_mode & 0o077 == 0
        assert not list((side / "peers").glob("*_secret"))
    with pytest.raises(SettingsError, match="exists already"):
        make_keys(folders[0].parent)


@pytest.mark.parametrize("room", range(6))
def test_keys_are_made_on_both_sides_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """The disk is full after so many steps, of which only making two pairs, two copies and two renames count."""
    steps = [0]

    def while_there_is_room(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            steps[0] += 1
            if steps[0] == room + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return do(*args)

        return step

    with monkeypatch.context() as full:
        full.setattr(zmq.auth, "create_certificates", while_there_is_room(zmq.auth.create_certificates))
        full.setattr(Path, "write_bytes", while_there_is_room(Path.write_bytes))
        full.setattr(Path, "rename", while_there_is_room(Path.rename))
        with pytest.raises(OSError) as e:
            make_keys(tmp_path / "site")
    assert e.value.filename == str(tmp_path / "site") and not list((tmp_path / "site").iterdir())
    assert all(side.is_dir() for side in make_keys(tmp_path / "site"))
    assert sorted(p.name for p in (tmp_path / "site").iterdir()) == ["client", "engine"]


def test_an_incomplete_folder_is_refused_by_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert open_keys(None) is None
    with pytest.raises(SettingsError, match=r"own\.key_secret"):
        open_keys(tmp_path)
    own = (folders[0] / "own.key_secret").read_bytes()
    (tmp_path / "own.key_secret").write_bytes(own.replace(b'secret-key = "', b'secret-key = "|'))
    with pytest.raises(SettingsError, match=r"own\.key_secret: not a usable key pair"):
        open_keys(tmp_path)
    (tmp_path / "own.key_secret").write_bytes(own)
    with pytest.raises(SettingsError, match="no public key in peers"):
        open_keys(tmp_path)


def test_who_connects_knows_one_key_of_the_other_side(folders: tuple[Path, Path], tmp_path: Path) -> None:
    client = Path(shutil.copytree(folders[1], tmp_path / "client"))
    (client / "peers" / "another.key").write_bytes((client / "own.key").read_bytes())
    keys = open_keys(client)
    assert keys is not None
    expected = pytest.raises(SettingsError, match="2 public keys")
    with zmq.Context() as context, context.socket(zmq.SUB) as socket, expected:
        keys.secure(socket, "connect")


HALVES = [
    "metadata\n",
    "curve\n    public-key",
    f'curve\n    public-key = "{"|" * 40}"',
    f'curve\n    public-key = "{"#" * 40}"',
]


@pytest.mark.parametrize("half", HALVES)
def test_a_file_half_written_lets_nobody_in_and_keeps_nobody_out(tmp_path: Path, half: str) -> None:
    public = zmq.auth.load_certificate(Path(zmq.auth.create_certificates(tmp_path, "whole")[0]))[0]
    for name in ("a_half", "z_half"):
        (tmp_path / f"{name}.key").write_text(half)
    told: list[str] = []
    check = _PeerCheck(set(), tmp_path, told.append)
    assert not check.callback("haad", b"x" * 40) and check.callback("haad", public)
    assert [name in "".join(told) for name in ("a_half.key", "z_half.key", "whole.key")] == [True, True, False]


def test_a_folder_of_peers_that_cannot_be_listed_lets_in_whom_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, pattern: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    told: list[str] = []
    check = _PeerCheck({b"y" * 40}, tmp_path, told.append)
    monkeypatch.setattr(Path, "glob", full)
    assert not check.callback("haad", b"x" * 40) and check.callback("haad", b"y" * 40)
    assert f"{tmp_path}: cannot be listed: Too many open files" in told


def test_who_makes_a_new_key_for_each_try_does_not_fill_the_log(tmp_path: Path) -> None:
    told: list[str] = []
    check = _PeerCheck(set(), tmp_path, told.append)
    for i in [*range(STRANGERS + 50), 0]:
        assert not check.callback("haad", b"%040d" % i)
    assert len(told) == STRANGERS + 1 and told[0] == told[-1]
