"""What the page says of inference: who waited how long, and how long the engine worked."""

from __future__ import annotations

import numpy as np
import pytest

from edge.engine import Staging
from edge.inference.batch import InFlight
from edge.inference.counts import LATENCY_BUCKETS, Counts


def flight(launched: float, *arrived: float) -> InFlight:
    n = len(arrived)
    nobody, never = np.zeros(n, np.intp), np.zeros(n, np.int64)
    return InFlight(Staging.empty(n, 1), nobody, never, np.array(arrived), np.ones(n, np.float32), launched)


def test_of_two_batches_that_overlap_the_time_is_counted_once() -> None:
    counts = Counts()
    counts.batch(flight(1.0, 0.9), 1.5)
    counts.batch(flight(1.2, 1.1), 2.0)  # it waited for the one before
    counts.batch(flight(3.0, 3.0), 3.25)
    assert counts.engine_seconds == pytest.approx(0.5 + 0.5 + 0.25) and counts.batches == 3


def test_a_windows_latency_is_in_the_bucket_that_it_does_not_exceed() -> None:
    counts = Counts()
    counts.batch(flight(0.0, *(-x for x in LATENCY_BUCKETS), -99.0), 0.0)
    assert counts.latency.tolist() == [1] * (len(LATENCY_BUCKETS) + 1)
    assert counts.latency_sum == pytest.approx(sum(LATENCY_BUCKETS) + 99)
