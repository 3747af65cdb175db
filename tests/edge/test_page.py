"""The page reads the loop's own counters."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.errors import SettingsError
from edge.notices import Notices
from edge.page import Page
from edge.runtime import STILL_S

from .harness import Bench, HeightEngine, LateEngine, bench, message, person


@pytest.fixture
def played() -> Bench:
    frames = [message("cam", k, k / 24, {1: person(0.1), 2: person(4.0)}) for k in range(96)]
    del frames[5]
    return bench(HeightEngine()).play([*frames, b"rubbish"])


@pytest.fixture
def page(played: Bench) -> Iterator[Page]:
    page = Page("127.0.0.1:0", played.runtime)
    yield page
    page.close()


def read(page: Page, path: str) -> str:
    with urllib.request.urlopen(f"http://{page.address}{path}", timeout=10) as r:
        return str(r.read().decode())


def test_metrics_are_the_loops_counters(page: Page, played: Bench) -> None:
    found = {
        (s.name, *(s.labels[k] for k in sorted(s.labels))): s.value
        for family in text_string_to_metric_families(read(page, "/metrics"))
        for s in family.samples
    }
    assert found["haad_frames_total",] == 95 and found["haad_frames_lost_total",] == 1
    assert found["haad_people_total",] == 190 and found["haad_tracks",] == 2 and found["haad_streams",] == 1
    assert found["haad_messages_dropped_total", "topic"] == 1
    windows = played.runtime.counts.windows
    assert found["haad_windows_total",] == windows == found["haad_latency_seconds_count",] > 0
    assert found["haad_latency_seconds_bucket", "+Inf"] == windows
    assert found["haad_alerts_total", "new"] == 1 == found["haad_alerts_standing",]
    assert ("haad_provenance_info", "height-1", played.runtime.bundle.model, "v1") in found


def test_the_age_of_each_stream_and_how_many_are_silent(page: Page, played: Bench) -> None:
    played.clock.now += 7.5
    played.runtime.step(0)
    text = read(page, "/metrics")
    assert 'haad_stream_age_seconds{stream="cam"} 7.5' in text and "haad_streams_silent 0.0" in text
    played.clock.now += 3.0
    played.runtime.step(0)
    assert "haad_streams_silent 1.0" in read(page, "/metrics")
    assert read(page, "/readyz") == "online: ok; silent: cam\n"


def test_readiness_follows_the_state_and_says_why(page: Page, played: Bench) -> None:
    assert read(page, "/readyz") == "online: ok\n"
    played.runtime.state, played.runtime.reason = "degraded", "the device is gone"
    with pytest.raises(urllib.error.HTTPError) as e:
        read(page, "/readyz")
    assert e.value.code == 503 and e.value.read() == b"degraded: the device is gone\n"
    assert read(page, "/healthz") == "alive\n"


def test_a_reason_with_a_file_name_that_is_no_text_stops_neither_the_loop_nor_the_page() -> None:
    class Feed:
        trouble = "/srv/\udcff: no clips"

        def take(self) -> None: ...

    b = bench(HeightEngine(), feed=Feed())
    b.runtime.step(0)
    page = Page("127.0.0.1:0", b.runtime)
    assert read(page, "/readyz") == "online: /srv/?: no clips\n"
    page.close()
    assert b.runtime.status().reason == Feed.trouble and b.sink.states() == ["online"]


def test_a_loop_that_hangs_is_not_ready_whatever_it_said_last(page: Page, played: Bench) -> None:
    """As on a GPU that neither answers nor fails."""
    played.clock.now += STILL_S + 1
    with pytest.raises(urllib.error.HTTPError) as e:
        read(page, "/readyz")
    said = b"online: no progress by the loop, or by the engine on its batch, for 31 s\n"
    assert e.value.code == 503 and e.value.read() == said
    assert "haad_ready 0.0" in read(page, "/metrics") and read(page, "/healthz") == "alive\n"
    played.runtime.step(0)
    assert read(page, "/readyz") == "online: ok; silent: cam\n"
    played.runtime.stop()
    played.runtime.run()
    played.clock.now += STILL_S + 1
    assert played.runtime.ready == (False, "offline: stopped")


def test_an_engine_that_hangs_is_not_ready_while_the_loop_goes_on_beside_it() -> None:
    """As where senders publish: nobody waits for the engine, windows are let go of, and messages are still read."""
    b = bench(LateEngine(HeightEngine(4), chance=0.0), overload="drop-oldest")
    ready = []
    for k in range(24 * 60):
        b.source.queue = [[message("cam", k, k / 24, {1: person(), 2: person()})]]
        b.clock.now = k / 24
        b.runtime.step(0)
        ready.append(b.runtime.ready[0])
    assert b.runtime.state == "online" and not b.runtime.counts.windows
    assert all(ready[: 24 * 30]) and not any(ready[-24 * 25 :])
    b.runtime.dispatch.flush()
    b.runtime.step(0)
    assert b.runtime.ready == (True, "online: " + b.runtime.reason) and b.runtime.counts.windows


def test_an_engine_with_a_batch_under_way_all_the_time_is_ready() -> None:
    b = bench(LateEngine(HeightEngine(1), chance=0.02), overload="drop-oldest")
    busy = 0
    for k in range(24 * 120):
        b.source.queue = [[message("cam", k, k / 24, {1: person(), 2: person(), 3: person()})]]
        b.clock.now = k / 24
        b.runtime.step(0)
        busy += b.runtime.dispatch.in_flight > 0
        assert b.runtime.ready[0]
    assert busy > 24 * 110 and b.runtime.counts.windows


def test_a_taken_port_is_a_settings_error(page: Page, played: Bench) -> None:
    with pytest.raises(SettingsError, match="cannot serve metrics"):
        Page(page.address, played.runtime)


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it becomes true in time."""
    until = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def test_who_hangs_up_is_no_news_and_a_fault_of_ours_is_one_line(
    page: Page, played: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, met = io.StringIO(), list[object]()
    played.runtime.notices = Notices(said)
    handle = page._server.handle_error

    def noted(request: object, client_address: object) -> None:
        handle(request, client_address)  # type: ignore[arg-type]
        met.append(client_address)

    monkeypatch.setattr(page._server, "handle_error", noted)
    host, _, port = page.address.rpartition(":")
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b"GET /metrics HTTP/1.1\r\n")  # the page waits for the rest when the reset comes
        assert within(5, lambda: any("process_request" in t.name for t in threading.enumerate()))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert within(5, lambda: len(met) == 1) and said.getvalue() == ""
    monkeypatch.setattr(type(played.runtime), "state", property(lambda r: 1 / 0), raising=False)
    for n in (2, 3):
        with pytest.raises(OSError):  # the connection is closed without an answer
            read(page, "/readyz")
        assert within(5, lambda n=n: len(met) == n)  # type: ignore[misc]
    assert said.getvalue() == "haad-edge: the metrics page failed: ZeroDivisionError('division by zero')\n"
    assert capsys.readouterr().err == ""
