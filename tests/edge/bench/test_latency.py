"""Latencies against cases made by hand."""

from __future__ import annotations

import pytest

from edge.bench.latency import EDGES_MS, Latencies, bucket_quantile, by_second, summary
from edge.events import Alert, Provenance, Scores

BY = Provenance("m", "e", "s")
MS = 1_000_000


def alert(kind: str, end: int) -> Alert:
    return Alert("i", kind, 0, "r", "cam", 1, 0, end, 2.0, 2.0, "walk", (), "", BY)  # type: ignore[arg-type]


def test_heard_counts_from_each_windows_end() -> None:
    heard = Latencies()
    heard.take(
        Scores(0, "r", "cam", [1, 2], [1000 * MS, 1010 * MS], [0.1] * 2, [0.1] * 2, ["a"] * 2, BY), now=1050 * MS
    )
    heard.take(alert("new", 1000 * MS), 1100 * MS)
    heard.take(alert("end", 1000 * MS), 9000 * MS)
    assert heard.score == pytest.approx([0.05, 0.04]) and heard.alert == pytest.approx([0.1])


def test_summary_and_histogram() -> None:
    found = summary([0.001] * 98 + [0.052, 0.4])
    assert (found["count"], found["p50_ms"], found["max_ms"]) == (100, 1.0, 400.0)
    histogram = dict(zip(EDGES_MS.tolist(), found["histogram"], strict=False))  # type: ignore[call-overload]
    assert histogram[0] == 98 and histogram[50] == 1 and histogram[200] == 1 and sum(histogram.values()) == 100
    assert summary([]) == {"count": 0}


def test_by_second() -> None:
    assert by_second([0.01, 0.03, 0.5], [7.0, 7.9, 9.2]) == [(0.0, 20.0, 29.8), (2.0, 500.0, 500.0)]


def test_a_quantile_from_a_pages_buckets() -> None:
    before = {"h_bucket{0.01}": 5.0, "h_bucket{0.02}": 5.0, "h_bucket{+Inf}": 5.0}
    after = {"h_bucket{0.01}": 15.0, "h_bucket{0.02}": 25.0, "h_bucket{+Inf}": 25.0}
    assert bucket_quantile(before, after, "h", 0.5) == pytest.approx(0.01)
    assert bucket_quantile(before, after, "h", 0.75) == pytest.approx(0.015)
    assert bucket_quantile(after, after, "h", 0.5) is None
