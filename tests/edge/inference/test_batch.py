"""Windows in the engine's own buffer: whose, since when, and how much of them was seen."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import EngineError
from edge.grid import SECOND, WindowSpec
from edge.inference.batch import Batch
from edge.windows import Slots, Windows

from ..harness import HeightEngine, person

T = 48


def staged(visible: np.ndarray | None = None, size: int = 8) -> tuple[Batch, Slots, HeightEngine]:
    """A batch over three people whose windows are whole; visible (T, 15) is of each of them."""
    windows, engine = Windows(WindowSpec.of(T, 2.0, 0.25, 0.5, 2.0), 8, 1), HeightEngine(size)
    stream = windows.stream_named("cam")
    assert stream is not None
    slots = windows.slots_of(stream, [0, 1, 2])
    seen = np.ones((T, 15), np.float32) if visible is None else visible
    for k in range(T):
        joints = np.stack([person(float(i)) for i in range(3)])
        list(windows.push(slots, np.full(3, -(-k * 2 * SECOND // T)), joints, np.stack([seen[k]] * 3)))
    return Batch(engine, windows), slots, engine


def test_what_is_seen_is_the_mean_over_the_whole_window() -> None:
    visible = np.ones((T, 15), np.float32)
    visible[:24] = 0.5
    batch, slots, _ = staged(visible)
    batch.add(slots, np.zeros(3, np.int64), 1.0)
    np.testing.assert_allclose(batch.take(1.0).seen, 0.75, atol=1e-6)


def test_a_batch_is_as_old_as_its_first_window_and_a_flight_keeps_its_columns() -> None:
    batch, slots, _ = staged()
    batch.add(slots[:1], np.array([5]), 1.0)
    batch.add(slots[1:], np.array([6, 7]), 2.0)
    assert batch.since == 1.0
    flight = batch.take(2.5)
    batch.add(slots[::-1], np.array([8, 8, 8]), 3.0)
    assert batch.since == 3.0
    assert (flight.slots.tolist(), flight.ends.tolist(), flight.arrived.tolist()) == ([0, 1, 2], [5, 6, 7], [1, 2, 2])


@pytest.mark.parametrize("asked", [1, 2, 8])
def test_what_was_put_aside_is_there_again(asked: int) -> None:
    visible = np.full((T, 15), 0.5, np.float32)
    batch, slots, engine = staged(visible)
    batch.add(slots, np.zeros(3, np.int64), 1.0)
    joints = engine.staging.joints[:3].copy()
    with pytest.raises(EngineError), batch.put_aside(asked):
        engine.staging.joints[:asked] = engine.staging.visible[:asked] = 9
        raise EngineError("it was lost meanwhile")
    np.testing.assert_array_equal(engine.staging.joints[:3], joints)
    np.testing.assert_allclose(engine.staging.visible[:3], 0.5, atol=1e-6)
