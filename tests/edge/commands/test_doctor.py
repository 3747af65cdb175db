"""What doctor finds, on this machine and on broken ones."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest
import zmq

from edge.bundle import BASE, open_bundle
from edge.commands import doctor
from edge.errors import BundleError, EngineError
from edge.events import encode_event
from edge.network.endpoint import Endpoint
from edge.network.sink import ZmqSink
from edge.page import Page
from edge.settings import Settings, load_settings
from tests.edge.engine.test_plans import ORIN, put
from tests.edge.harness import HeightEngine, bench


def by_name(config: Path | None = None) -> dict[str, doctor.Finding]:
    return {f.name: f for f in doctor.examine(config)}


def journal() -> doctor.Finding:
    return doctor._journal(load_settings())


def test_the_default_engine_works_here() -> None:
    found = by_name()
    assert found["engine onnx"].verdict == "ok" and "base-" in found["engine onnx"].detail
    assert found["haad-edge"].verdict == "ok"


def test_a_plan_is_opened_before_it_is_called_ok(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle, opened = put(open_bundle(shutil.copytree(BASE, tmp_path / "bundle"))), list[str]()
    monkeypatch.setattr(doctor, "this_machine", lambda: ORIN)
    monkeypatch.setenv("HAAD_BUNDLE", str(bundle.root))
    monkeypatch.setattr(doctor, "open_engine", lambda b, name, max_batch: opened.append(name) or HeightEngine())
    assert doctor._tensorrt(load_settings()).verdict == "ok" and opened == ["tensorrt"]

    def fails(*given: object, **more: object) -> HeightEngine:
        raise EngineError("TensorRT cannot be started", why="CUDA error 35", fix="see docs")

    monkeypatch.setattr(doctor, "open_engine", fails)
    found = doctor._tensorrt(load_settings())
    assert (found.verdict, found.fix) == ("broken", "see docs") and "CUDA error 35" in found.detail


def test_every_line_that_is_not_ok_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "version_of", lambda p: None)

    def broken() -> object:
        raise BundleError("no bundle", why="a test", fix="reinstall")

    monkeypatch.setattr(doctor, "open_bundle", broken)
    found = by_name()
    assert found["engine onnx"] == doctor.Finding("engine onnx", "broken", "no bundle: a test", "reinstall")
    assert found["training"].verdict == "absent" and "haad-edge[train]" in found["training"].fix
    assert found["cache"].verdict == "broken"
    assert all(f.fix for f in found.values() if f.verdict != "ok")


def test_the_cache_looked_at_is_the_one_that_run_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAAD_CACHE", str(tmp_path / "mine"))
    assert by_name()["cache"] == doctor.Finding("cache", "ok", str(tmp_path / "mine"))


def test_the_journal_is_where_run_would_write_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HAAD_JOURNAL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "haad-edge" / "journal.db"
    assert journal() == doctor.Finding("journal", "ok", str(path)) and not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(bytes(1 << 20))
    assert journal().detail == f"{path}, 1.0 MiB"
    monkeypatch.setenv("HAAD_JOURNAL", str(path / "below" / "j.db"))
    assert journal().verdict == "broken"
    monkeypatch.setenv("HAAD_JOURNAL", str(tmp_path))
    assert journal() == doctor.Finding("journal", "broken", f"{tmp_path}: a folder", "name another: --journal PATH")
    (tmp_path / "my.yaml").write_text("support: s")
    monkeypatch.setenv("HAAD_JOURNAL", str(tmp_path / "my.yaml"))
    assert "a file, but not a journal" in journal().detail
    monkeypatch.setenv("HAAD_JOURNAL", "off")
    assert journal().verdict == "absent"


def test_settings_that_cannot_be_read_are_one_finding_among_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"journal: {tmp_path}/j.db\nmetrics: 'off'\n")
    assert by_name(config)["journal"].detail == f"{tmp_path}/j.db" and "settings" not in by_name(config)
    config.write_text("max_traks: 3\n")
    found = by_name(config)
    assert found["settings"].verdict == "broken" and "max_traks" in found["settings"].detail
    assert found["engine onnx"].verdict == "ok" and found["ports"].verdict in ("ok", "broken")


@pytest.fixture
def at(tmp_path: Path) -> Settings:
    """Where nobody else listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        page = f"127.0.0.1:{s.getsockname()[1]}"
    kinds = {"ingest": "sub", "alerts": "pub", "replay": "router"}
    where = {name: f"{kind}+bind:ipc://{tmp_path}/{name}" for name, kind in kinds.items()}
    return Settings(metrics=page, **where)  # type: ignore[arg-type]


def test_the_pages_port_is_looked_at_too_and_what_has_it(monkeypatch: pytest.MonkeyPatch, at: Settings) -> None:
    monkeypatch.setattr(doctor, "STATUS_S", 0.3)
    assert doctor._ports(at) == doctor.Finding("ports", "ok", "free")
    host, _, port = at.metrics.partition(":")
    with socket.create_server((host, int(port))):
        found = doctor._ports(at)
    assert (found.verdict, found.detail) == ("broken", f"in use: {at.metrics}") and found.fix
    page = Page(at.metrics, bench(HeightEngine()).runtime)
    try:
        found = doctor._ports(at)
    finally:
        page.close()
    assert (found.verdict, found.detail) == ("ok", f"in use by a running haad-edge engine: {at.metrics}")


def test_what_is_off_or_elsewhere_is_not_looked_at(at: Settings) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        busy = f"127.0.0.1:{s.getsockname()[1]}"
        there = {"ingest": f"sub+connect:tcp://{busy}", "metrics": "off", "replay": "off"}
        assert doctor._ports(at.model_copy(update=there)).verdict == "ok"
        assert doctor._ports(at.model_copy(update={"metrics": busy})).verdict == "broken"


def test_an_engine_without_a_page_is_known_by_its_status(at: Settings) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sink = ZmqSink(context, [Endpoint.parse(at.alerts)], 100)
    runtime = bench(HeightEngine()).runtime
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            sink.newcomers()
            sink.send(encode_event(runtime.status()))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        found = doctor._ports(at)
    finally:
        ended.set()
        thread.join()
        sink.close()
        context.term()
    assert found.verdict == "ok" and "a running haad-edge engine: ipc://" in found.detail
