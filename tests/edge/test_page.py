"""The page reads the loop's own counters."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.errors import SettingsError
from edge.page import Page

from .harness import Bench, HeightEngine, bench, message, person


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


def test_readiness_follows_the_state_and_says_why(page: Page, played: Bench) -> None:
    assert read(page, "/readyz") == "online: ok\n"
    played.runtime.state, played.runtime.reason = "degraded", "the device is gone"
    with pytest.raises(urllib.error.HTTPError) as e:
        read(page, "/readyz")
    assert e.value.code == 503 and e.value.read() == b"degraded: the device is gone\n"
    assert read(page, "/healthz") == "alive\n"


def test_a_taken_port_is_a_settings_error(page: Page, played: Bench) -> None:
    with pytest.raises(SettingsError, match="cannot serve metrics"):
        Page(page.address, played.runtime)
