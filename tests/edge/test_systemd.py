"""What systemd is told: ready, how it is, that it lives while it makes progress, and that it stops."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.runtime import STILL_S
from edge.systemd import notify, supervised, watchdog_s

from .harness import HeightEngine, bench


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield s


def told(s: socket.socket) -> list[str]:
    return s.recv(4096).decode().splitlines()


def test_it_hears_of_an_engine_that_lives_and_no_more_from_one_that_hangs(systemd: socket.socket) -> None:
    b = bench(HeightEngine())
    with supervised(b.runtime):
        assert told(systemd) == ["READY=1"]
        for _ in range(3):
            assert told(systemd) == ["STATUS=online: ok", "WATCHDOG=1"]
        b.clock.now += STILL_S + 1
        while "WATCHDOG=1" in (last := told(systemd)):
            pass
        assert last == ["STATUS=online: no progress by the loop, or by the engine on its batch, for 31 s"]
        b.runtime.step(0)
        while "WATCHDOG=1" not in (last := told(systemd)):
            pass
        b.runtime.state, b.runtime.reason = "degraded", "no device"
        while (last := told(systemd))[0] == "STATUS=online: ok":
            pass
        assert last == ["STATUS=degraded: no device", "WATCHDOG=1"], "it works at that, and needs no restart"
    while (last := told(systemd))[0] != "STOPPING=1":
        pass


def test_whatever_an_error_says_it_hears_that_the_engine_lives(systemd: socket.socket) -> None:
    b = bench(HeightEngine())
    b.runtime.state = "degraded"
    b.runtime.reason = "a\nREADY=0\0\udcff" + "é" * 5000
    with supervised(b.runtime):
        assert told(systemd) == ["READY=1"]
        for _ in range(2):
            status, alive = told(systemd)
            assert status.startswith("STATUS=degraded: a READY=0  éé") and alive == "WATCHDOG=1"


@pytest.mark.parametrize(("watchdog", "seconds"), [("4000000", 2.0), ("60000000", 5.0), ("", 5.0)])
def test_it_is_told_twice_as_often_as_it_asks_for_and_at_least_every_few_seconds(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, watchdog: str, seconds: float
) -> None:
    waits = list[float | None]()

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return super().wait(0.001)

    monkeypatch.setattr("edge.systemd.threading.Event", Event)
    monkeypatch.setenv("WATCHDOG_USEC", watchdog)
    with supervised(bench(HeightEngine()).runtime):
        for _ in range(3):
            told(systemd)
    assert seconds in waits


def test_a_socket_of_the_abstract_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(f"\0haad-{os.getpid()}")
        s.settimeout(20)
        notify("READY=1", {"NOTIFY_SOCKET": f"@haad-{os.getpid()}"})
        assert s.recv(99) == b"READY=1"


@pytest.mark.parametrize("address", ["", "none", "/nowhere/at/all", "@nobody-is-there", "@"])
def test_without_somebody_who_listens_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with supervised(bench(HeightEngine()).runtime):
        notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_whether_it_watches_this_process(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_s(environment) == seconds
