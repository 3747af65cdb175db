"""The sizes that batches are padded to, and the memory that is allocated for them."""

from __future__ import annotations

import numpy as np
import pytest

from edge.engine.device import Room
from edge.engine.places import buckets, memory_of

from .fake import expected
from .test_pipeline import ROOM, D, T, fill, make, support


def test_buckets_are_powers_of_two_and_the_most() -> None:
    assert buckets(1, 64) == (1, 2, 4, 8, 16, 32, 64) and buckets(1, 48) == (1, 2, 4, 8, 16, 32, 48)
    assert buckets(1, 1) == (1,) and buckets(4, 64) == (4, 8, 16, 32, 64)
    assert buckets(3, 10) == (3, 4, 8, 10) and buckets(16, 8) == (16,)


def test_buckets_are_multiples_of_what_is_computed_together() -> None:
    assert buckets(1, 64, 8) == (8, 16, 32, 64) and buckets(8, 20, 8) == (8, 16, 24)
    assert buckets(1, 5, 8) == (8,) and buckets(1, 12, 3) == (3, 6, 9, 12) and buckets(7, 2, 4) == (8,)


def test_the_memory_said_is_what_is_allocated() -> None:
    for max_batch in (1, 6, 100):
        _, device, _ = make(max_batch=max_batch)
        assert sum(m.nbytes for m in device.memory.values()) == memory_of(ROOM, T, D, max_batch)


def test_batches_are_padded_to_what_is_computed_together() -> None:
    room = Room((1, 16), (1, 2), (1, 4), step=4)
    p, device, program = make(room=room, max_batch=6)
    p.bind(*support(0))
    assert p.staging.size == 6 and p.buckets == (4, 8)
    for n in (1, 4, 5, 6):
        want = expected(*fill(p, n, n), *support(0))
        for found, w in zip(p.run(n), want, strict=True):
            np.testing.assert_allclose(found, w, rtol=1e-5, atol=1e-6)
    p.warm()
    assert set(program.runs) == {4, 8}
    with pytest.raises(ValueError, match="7 windows of at most 6"):
        p.submit(7)
    assert sum(m.nbytes for m in device.memory.values()) == memory_of(room, T, D, 6) == memory_of(room, T, D, 8)
