"""More is due than the engine can judge: it takes `cost` seconds a window here, by a clock that only waiting moves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from edge.engine import Staging
from edge.events import Status
from edge.inference.counts import Counts
from edge.inference.overload import Overload
from edge.skeleton import Float

from ..harness import Bench, FakeClock, HeightEngine, bench, message, person

SECONDS = 12.0


@dataclass
class World:
    """Messages that come at their times, an engine of a fixed speed, and one clock for both."""

    clock: FakeClock
    arriving: deque[tuple[float, bytes]]
    largest: int = 0
    """Of what was received at once: how far behind its cameras the loop was."""

    def receive(self, timeout: float) -> list[list[bytes]]:
        if self.arriving and self.arriving[0][0] > self.clock.now:
            self.clock.now = min(self.clock.now + timeout, self.arriving[0][0])
        elif not self.arriving:
            self.clock.now += timeout
        out = []
        while self.arriving and self.arriving[0][0] <= self.clock.now:
            out.append([self.arriving.popleft()[1]])
        self.largest = max(self.largest, len(out))
        return out

    def close(self) -> None: ...


@dataclass
class SlowEngine:
    """HeightEngine two batches deep, `cost` seconds a window, one batch after the other; `collect` waits."""

    clock: FakeClock
    cost: float
    inner: HeightEngine
    under: deque[tuple[Staging, int, float]] = field(default_factory=deque)
    free: list[Staging] = field(default_factory=list)
    busy_until: float = 0.0
    name: str = "slow-1"
    fallbacks: int = 0

    def __post_init__(self) -> None:
        size, frames = self.inner.staging.size, self.inner.staging.joints.shape[1]
        self.free = [Staging.empty(size, frames), Staging.empty(size, frames)]

    @property
    def staging(self) -> Staging:
        return self.free[0] if self.free else self.under[0][0]

    @property
    def pending(self) -> int:
        return len(self.under)

    @property
    def full(self) -> bool:
        return not self.free

    @property
    def ready(self) -> bool:
        return bool(self.under) and self.clock.now >= self.under[0][2]

    categories = None

    def admit(self, support: Float) -> None: ...

    def close(self) -> None: ...

    def bind(self, support: Float, mask: Float) -> None:
        self.inner.bind(support, mask)

    def submit(self, n: int) -> None:
        self.busy_until = max(self.busy_until, self.clock.now) + n * self.cost
        self.under.append((self.free.pop(0), n, self.busy_until))

    def collect(self) -> Float:
        staging, n, until = self.under.popleft()
        self.clock.now = max(self.clock.now, until)
        self.free.append(staging)
        return self._compute(staging, n)[1]

    def run(self, n: int) -> tuple[Float, Float]:
        return self._compute(self.staging, n)

    def _compute(self, staging: Staging, n: int) -> tuple[Float, Float]:
        self.inner.staging.joints[:n], self.inner.staging.visible[:n] = staging.joints[:n], staging.visible[:n]
        return self.inner.run(n)


def watch(policy: str | None, *, rate: float, busy: int = 20, seconds: float = SECONDS) -> tuple[Bench, World, float]:
    """A camera with `busy` people and one with a single person, at 10 fps and 4 windows a second of each person; an
    engine that judges `rate` windows a second. Also by the engine's clock how late it was at the end."""
    clock = FakeClock(0.0)
    frames = [
        (k / 10, message(stream, k, 5 + k / 10, {i: person(0.1) for i in range(people)}))
        for k in range(int(seconds * 10))
        for stream, people in (("busy", busy), ("quiet", 1))
    ]
    world = World(clock, deque(frames))
    given = {} if policy is None else {"overload": policy}
    b = bench(SlowEngine(clock, 1 / rate, HeightEngine(16)), source=world, clock=clock, batch_deadline=0.01, **given)
    while world.arriving:
        b.runtime.step(b.runtime.dispatch.patience(0.1))
    late = clock.now - frames[-1][0]
    b.runtime.dispatch.flush()
    return b, world, late


def scored(b: Bench) -> dict[tuple[str, int], list[float]]:
    """Ends of the windows that were judged, seconds of capture, by track."""
    found: dict[tuple[str, int], list[float]] = {}
    for stream, track, end in sorted(b.sink.scores()):
        found.setdefault((stream, track), []).append(end / 1e9)
    return found


DUE = 21 * (1 + (SECONDS - 0.1 - 47 / 24) / 0.25)
"""Windows of everybody, but for one of each person by its phase."""


def test_with_room_enough_no_policy_skips_anything() -> None:
    plain = scored(watch("wait", rate=400)[0])
    for policy in ("drop-oldest", "widen-stride"):
        b, _, late = watch(policy, rate=400)
        assert scored(b) == plain and late < 0.15
        assert b.runtime.counts.skipped == {} and b.runtime.reason == ""
    assert abs(sum(map(len, plain.values())) - DUE) <= 21


def test_who_waits_skips_nothing_and_is_late() -> None:
    b, world, late = watch("wait", rate=40)
    assert b.runtime.counts.skipped == {} and abs(sum(map(len, scored(b).values())) - DUE) <= 21
    assert late > 5 and world.largest > 5, "84 windows a second, 40 judged"


@pytest.mark.parametrize("rate", [40, 20])
def test_the_oldest_are_dropped_and_counted_and_nobody_is_late(rate: float) -> None:
    b, world, late = watch("drop-oldest", rate=rate)
    judged, skipped = sum(map(len, scored(b).values())), b.runtime.counts.skipped["overload"]
    assert skipped > 100 and abs(judged + skipped - DUE) <= 21, "each window was judged or counted"
    assert judged >= 0.9 * rate * (SECONDS - 2.2), "the engine had no rest"
    assert late < 0.15 and world.largest <= 2 * 2, "the loop never waited for it"
    assert "windows in the last second were not judged" in b.runtime.reason
    assert any(e.reason.startswith("overloaded") for e in b.sink.events if isinstance(e, Status))
    assert b.runtime.state == "online" and b.runtime.dispatch.overload.backlog.n == 0


@pytest.mark.parametrize("policy", ["drop-oldest", "widen-stride"])
def test_a_busy_camera_does_not_starve_a_quiet_one(policy: str) -> None:
    b, _, _ = watch(policy, rate=40, busy=40)
    found = scored(b)
    if policy == "drop-oldest":
        gaps = np.diff(found["quiet", 0])
        assert gaps.max() < 16 / 40 + 0.1, "it is in every batch of 16, at 40 a second; by the time between two frames"
    counts = [len(v) for (stream, _), v in found.items() if stream == "busy"]
    assert len(counts) == 40 and max(counts) - min(counts) <= 4, "nor one person another"


def test_everybody_has_a_share_of_what_can_be_judged() -> None:
    b, _, _ = watch("drop-oldest", rate=20)
    spacing = np.concatenate([np.diff(v) for v in scored(b).values()])
    assert np.median(spacing) == pytest.approx(21 / 20, abs=0.3), "each has its share of 20 a second"


def test_the_stride_widens_until_it_fits_and_narrows_again() -> None:
    b, _, _ = watch("widen-stride", rate=25)
    assert b.runtime.windows.widen == 4
    assert b.runtime.counts.skipped["stride_widened"] > b.runtime.counts.skipped["overload"] > 0
    late = np.concatenate([np.diff([t for t in v if t > 5 + 8]) for v in scored(b).values()])
    assert np.allclose(late, late.round(), atol=0.11) and late.min() > 0.8, "even: four strides apart, or eight"
    assert "the stride is 4 times as wide" in b.runtime.reason
    clock = b.runtime.clock
    for _ in range(25):
        clock.now += 1.0  # type: ignore[attr-defined]
        b.runtime.step(0.0)
    assert b.runtime.windows.widen == 1 and b.runtime.reason == ""


def test_a_track_that_goes_while_it_waits_is_counted() -> None:
    b, _, _ = watch("drop-oldest", rate=20, seconds=3.0)
    runtime = b.runtime
    runtime.windows.stream_named("busy")
    slots = list(runtime.windows.streams["busy"].slots.values())
    runtime.dispatch.overload.put(np.array(slots))
    before = runtime.counts.skipped["overload"]
    runtime._release(slots[:5])
    assert runtime.counts.skipped["overload"] == before + 5 and runtime.dispatch.overload.backlog.n == len(slots) - 5


def test_what_waits_has_its_turn_also_when_the_engine_was_emptied_meanwhile() -> None:
    """A track that goes, or a new support set, has all that is under way judged; the others still wait."""
    b, _, _ = watch("drop-oldest", rate=20, seconds=3.0)
    dispatch = b.runtime.dispatch
    dispatch.overload.put(np.array(list(b.runtime.windows.streams["busy"].slots.values())))
    dispatch.settle()
    before = b.runtime.counts.windows
    assert dispatch.overload.backlog.n == 20
    for _ in range(40):
        b.runtime.step(0.05)
    assert dispatch.overload.backlog.n == 0 and b.runtime.counts.windows == before + 20


def test_the_stride_is_at_most_eight_times_as_wide_and_narrows_after_five_calm_seconds() -> None:
    windows, counts = SimpleNamespace(widen=1, widened=0), Counts()
    load, found = Overload("widen-stride", windows, counts), []  # type: ignore[arg-type,var-annotated]
    for k in range(4 + 15):
        counts.skipped["overload"] += 3 * (k < 4)
        load.every_second()
        found.append(windows.widen)
        assert (f"the stride is {windows.widen} times as wide" in load.reason) == (windows.widen > 1)
        assert ("3 windows in the last second" in load.reason) == (k < 4)
    assert found == [2, 4, 8, 8, *[8] * 4, *[4] * 5, *[2] * 5, 1] and load.reason == ""
    windows.widen = 8
    for k in range(11):
        counts.skipped["overload"] += k == 3
        load.every_second()
        assert windows.widen == (8 if k < 8 else 4), "five in a row"


def test_windows_that_a_wider_stride_passed_are_counted_once() -> None:
    windows, counts = SimpleNamespace(widen=2, widened=0), Counts()
    load, found = Overload("drop-oldest", windows, counts), []  # type: ignore[arg-type,var-annotated]
    for widened in (0, 5, 5, 7):
        windows.widened = widened
        load.every_second()
        found.append(counts.skipped["stride_widened"])
    assert found == [0, 5, 5, 7]


def test_a_window_that_has_just_become_whole_has_its_turn_and_one_cut_by_a_gap_is_counted() -> None:
    b = bench(HeightEngine(8), overload="drop-oldest")
    b.play([message("cam", k, 5 + k / 24, {1: person(), 2: person()}) for k in range(48)])
    load, slots = b.runtime.dispatch.overload, [*b.runtime.windows.streams["cam"].slots.values()]
    assert b.runtime.windows.rows[slots].tolist() == [48, 48]
    load.put(np.array(slots))
    assert load.take(8) == slots and not b.runtime.counts.skipped
    load.put(np.array(slots))
    b.play([message("cam", 48, 8, {1: person(), 2: person()})])
    assert b.runtime.windows.fate["gaps"] == 2
    assert load.backlog.n == 0 and b.runtime.counts.skipped == {"overload": 2}
