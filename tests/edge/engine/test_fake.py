"""The device of the tests: it finds every wait that is left out, and what the host does wrong."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from edge.engine.device import Stream
from edge.skeleton import Float

from .fake import FakeDevice, Misuse, expected
from .test_pipeline import fill, make, support


class Careless(FakeDevice):
    """Leaves out the waits of one stream, or those of the host."""

    def __init__(self, seed: int, stream: int | None, host: bool = False) -> None:
        super().__init__(seed)
        self.skip, self.host_ = stream, host

    def wait(self, stream: Stream, event: Any) -> None:
        if stream != self.skip:
            super().wait(stream, event)

    def synchronize(self, event: Any) -> None:
        if not (self.host_ and self.sealed):
            super().synchronize(event)


def exercise(device: FakeDevice) -> None:
    p, *_ = make(device=device)
    p.bind(*support(0))
    want: deque[Float] = deque()
    for i in range(24):
        if p.full:
            np.testing.assert_allclose(p.collect()[1], want.popleft(), rtol=1e-4, atol=1e-5)
        bound = support(i // 3)
        if i % 3 == 0:
            p.bind(*support(99))  # twice: the second goes where a batch under way may still read
            p.bind(*bound)
        want.append(expected(*fill(p, 4, i), *bound)[1])
        p.submit(4)
    device.drain()


def test_the_exercise_passes_on_a_device_that_keeps_its_promises() -> None:
    exercise(FakeDevice(1))


@pytest.mark.parametrize(
    "device",
    [
        pytest.param(Careless(1, 1), id="compute before the copy in, or before the support is written"),
        pytest.param(Careless(1, 2), id="copy out before compute"),
        pytest.param(Careless(1, 0), id="support overwritten while it is read"),
        pytest.param(Careless(1, None, host=True), id="the host waits for nothing"),
    ],
)
def test_a_wait_left_out_is_found(device: FakeDevice) -> None:
    with pytest.raises(AssertionError):
        exercise(device)


def test_the_fake_finds_what_the_host_does_wrong() -> None:
    p, device, _ = make()
    p.bind(*support(0))
    fill(p, 4, 0)
    place = p.staging
    p.submit(4)
    place.joints[0] = 9
    with pytest.raises(Misuse, match="host wrote to pinned memory"):
        p.collect()
    with pytest.raises(Misuse, match="allocate after everything"):
        device.allocate(4)
    with pytest.raises(Misuse, match="not pinned"):
        device.copy_in(next(iter([p._slots[0].joints])), np.zeros(4, np.float32), Stream(0))
