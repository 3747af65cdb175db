"""When a device is lost, the next engine takes over, and no window is lost by it."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from edge.bundle import Bundle, open_bundle
from edge.engine import Engine, Staging
from edge.engine.fallback import Fallback, open_first
from edge.engine.onnx import OnnxEngine
from edge.errors import BundleError, EngineError, NoPlan
from edge.motion import make_motion
from edge.skeleton import Float
from edge.support.enrol import clip_windows
from tests.edge.harness import AtOnce

from .fake import FakeDevice, expected
from .test_pipeline import T, fill, make, support


class Plain(AtOnce):
    """The fake program's numbers, computed at once, as ONNX Runtime would."""

    def __init__(self, name: str = "plain", broken: bool = False) -> None:
        self.name, self.staging, self.fallbacks = name, Staging.empty(8, T), 0
        self.broken, self.closed = broken, False

    def bind(self, support: Float, mask: Float) -> None:
        self.bound = support, mask

    def run(self, n: int) -> tuple[Float, Float]:
        if self.broken:
            raise EngineError(f"{self.name} is broken too", lost=True)
        return expected(self.staging.joints[:n], self.staging.visible[:n], *self.bound)

    def close(self) -> None:
        self.closed = True


def relay(seed: int = 0) -> tuple[Fallback, FakeDevice, Plain, list[tuple[str, str]]]:
    pipeline, device, _ = make(seed, name="gpu")
    second, told = Plain(), []
    f = Fallback([pipeline, second], lambda e, name: told.append((str(e), name)))  # type: ignore[list-item]
    f.bind(*support(0))
    return f, device, second, told


@pytest.mark.parametrize("after", range(0, 60, 3))
def test_lost_with_nobody_to_take_over_it_owes_nothing(after: int) -> None:
    """Else who lands what is ready would ask for ever for what never comes."""
    pipeline, device, _ = make(after)
    f = Fallback([pipeline])
    f.bind(*support(0))
    device.lose_after = after
    with pytest.raises(EngineError) as e:
        for i in range(100):
            fill(f, 4, i)  # type: ignore[arg-type]
            f.submit(4)
            while f.ready or f.full:
                f.collect()
    assert e.value.lost
    while f.pending:  # what was taken before the loss
        with pytest.raises(EngineError, match="lost"):
            f.collect()
    assert not f.ready and not f.full and f.fallbacks == 0
    with pytest.raises(EngineError, match="lost"):
        f.submit(4)
    assert not f.ready and not f.full and f.pending == 0
    f.close()


@pytest.mark.parametrize("after", [*range(60), 75, 90, 120, 150])
def test_every_batch_gets_its_result_whenever_the_device_is_lost(after: int) -> None:
    f, device, _, told = relay(after)
    device.lose_after = after
    want: deque[Float] = deque()
    bound = support(0)

    def check() -> None:
        np.testing.assert_allclose(f.collect(), want.popleft(), rtol=1e-4, atol=1e-5)

    for i in range(16):
        while f.full:
            check()
        if i % 3 == 0:
            bound = support(i)
            f.bind(*bound)
        want.append(expected(*fill(f, 1 + i % 8, i), *bound)[1])  # type: ignore[arg-type]
        f.submit(1 + i % 8)
        if i % 4 == 3:
            while want:
                check()
            now = expected(*fill(f, 2, i), *bound)  # type: ignore[arg-type]
            np.testing.assert_allclose(f.run(2)[1], now[1], rtol=1e-4, atol=1e-5)
    while want:
        check()
    assert f.pending == 0 and device.reported
    assert (f.name, f.fallbacks, len(told)) == ("plain", 1, 1)
    assert told[0] == ("the GPU is lost: a test pulled it out", "plain")


def test_the_buffer_that_is_being_filled_stays_the_same_when_another_takes_over() -> None:
    """A caller that holds on to `staging`, as one that only runs may, goes on with it."""
    f, device, _, _ = relay()
    place = f.staging
    device.lost = True
    want = expected(*fill(f, 4, 0), *support(0))  # type: ignore[arg-type]
    np.testing.assert_allclose(f.run(4)[1], want[1], rtol=1e-4, atol=1e-5)
    assert f.staging is place
    want = expected(*fill(f, 4, 1), *support(0))  # type: ignore[arg-type]
    np.testing.assert_allclose(f.run(4)[1], want[1], rtol=1e-4, atol=1e-5)


def test_a_support_set_that_meets_the_loss_is_the_one_that_is_used() -> None:
    f, device, second, _ = relay()
    device.lost = True
    fresh = support(1)
    f.bind(*fresh)
    assert f.name == "plain" and second.bound[0] is fresh[0]


def test_what_the_next_engine_computed_is_ready_and_the_buffer_being_filled_stays_till_it_is_handed_in() -> None:
    f, device, second, _ = relay()
    want = [expected(*fill(f, 4, 0), *support(0))]  # type: ignore[arg-type]
    f.submit(4)
    place = f.staging
    want.append(expected(*fill(f, 3, 1), *support(0)))  # type: ignore[arg-type]
    device.lost = True
    np.testing.assert_allclose(f.collect(), want[0][1], rtol=1e-4, atol=1e-5)
    assert f.staging is place and not f.ready
    f.submit(3)
    assert f.ready and f.full and f.pending == 1
    np.testing.assert_allclose(f.collect(), want[1][1], rtol=1e-4, atol=1e-5)
    assert f.staging is second.staging and not f.ready


def test_an_engine_that_was_never_needed_is_closed_too() -> None:
    f, _, second, _ = relay()
    f.close()
    assert second.closed


def test_a_batch_under_way_when_a_single_run_meets_the_loss_can_be_collected_at_once() -> None:
    """As when an alert is explained: who collects only what is ready would never have it, nor room for the next."""
    f, device, _, _ = relay()
    want = expected(*fill(f, 4, 0), *support(0))  # type: ignore[arg-type]
    f.submit(4)
    fill(f, 2, 1)  # type: ignore[arg-type]
    device.lost = True
    f.run(2)
    assert f.ready and f.pending == 1
    np.testing.assert_allclose(f.collect(), want[1], rtol=1e-4, atol=1e-5)
    assert not f.ready and not f.full


def test_without_another_engine_the_loss_is_raised_every_time() -> None:
    pipeline, device, _ = make()
    f = Fallback([pipeline])
    f.bind(*support(0))
    device.lost = True
    for _ in range(3):
        with pytest.raises(EngineError, match="GPU is lost") as e:
            f.run(1)
        assert e.value.lost and f.fallbacks == 0
        with pytest.raises(EngineError, match="GPU is lost"):
            f.submit(1)
        assert f.pending == 0


def test_an_engine_after_the_next_is_used_too_and_all_are_closed() -> None:
    pipeline, device, _ = make()
    second, third = Plain("second", broken=True), Plain("third")
    f = Fallback([pipeline, second, third])  # type: ignore[list-item]
    f.bind(*support(0))
    device.lost = True
    want = expected(*fill(f, 3, 0), *support(0))  # type: ignore[arg-type]
    np.testing.assert_allclose(f.run(3)[1], want[1], rtol=1e-4, atol=1e-5)
    assert (f.name, f.fallbacks, second.closed) == ("third", 2, True)
    f.close()
    assert third.closed


def test_what_was_under_way_is_judged_by_the_support_it_was_submitted_with() -> None:
    f, device, _, _ = relay()
    old = expected(*fill(f, 4, 0), *support(0))  # type: ignore[arg-type]
    f.submit(4)
    f.bind(*support(5, 3, 2))
    device.lost = True
    np.testing.assert_allclose(f.collect(), old[1], rtol=1e-4, atol=1e-5)
    new = expected(*fill(f, 2, 1), *support(5, 3, 2))  # type: ignore[arg-type]
    f.submit(2)
    assert f.full and f.pending == 1
    np.testing.assert_allclose(f.collect(), new[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError):
        f.collect()


def test_when_the_next_engine_fails_too_what_was_under_way_is_given_up_and_the_one_after_is_not() -> None:
    """Whoever drains until nothing is pending would otherwise wait for ever."""
    f, device, second, _ = relay()
    fill(f, 4, 0)  # type: ignore[arg-type]
    f.submit(4)
    device.lost = second.broken = True
    with pytest.raises(EngineError, match="broken too"):
        f.collect()
    assert f.pending == 0 and not f.full
    fill(f, 4, 1)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="broken too"):
        f.submit(4)
    assert f.pending == 0
    second.broken = False
    for seed in (2, 3):
        want = expected(*fill(f, 3, seed), *support(0))  # type: ignore[arg-type]
        f.submit(3)
        np.testing.assert_allclose(f.collect(), want[1], rtol=1e-4, atol=1e-5)


def test_an_error_that_is_no_loss_changes_nothing() -> None:
    f, _, _, told = relay()
    with pytest.raises(EngineError, match="4 categories"):
        f.bind(*support(1, 4, 2))
    want = expected(*fill(f, 3, 0), *support(0))  # type: ignore[arg-type]
    np.testing.assert_allclose(f.run(3)[1], want[1], rtol=1e-4, atol=1e-5)
    assert (f.name, f.fallbacks, told) == ("gpu", 0, [])


def test_onnx_runtime_takes_over_with_the_numbers_of_its_own() -> None:
    """The real second engine, behind a first whose device goes."""
    bundle = open_bundle()
    first, second, reference = (OnnxEngine(bundle, max_batch=16) for _ in range(3))

    def gone(n: int) -> tuple[Float, Float]:
        raise EngineError("the GPU is lost", lost=True)

    first.run = gone  # type: ignore[method-assign]
    f = Fallback([first, second])
    joints, visible = clip_windows(make_motion("walk", seconds=3), bundle.manifest.frames, bundle.manifest.seconds)
    n = len(joints)
    for engine in (f, reference):
        engine.staging.joints[:n], engine.staging.visible[:n] = joints, visible
        engine.bind(np.ones((2, 8, 128), np.float32) / 12, np.ones((2, 8), np.float32))
    f.submit(n)
    np.testing.assert_array_equal(f.collect(), reference.run(n)[1])


# ---- which engines are opened at the start --------------------------------------------------------------------------


class Openers:
    """Opens what it is told can be opened."""

    def __init__(self, *good: str) -> None:
        self.good, self.asked, self.built = set(good), [], 0

    def __call__(self, bundle: Bundle, name: str, *, max_batch: int, threads: int) -> Engine:
        self.asked.append((name, max_batch))
        if name not in self.good:
            raise (NoPlan if name == "tensorrt" else EngineError)(f"no {name}", why="a test", fix=f"get {name}")
        return Plain(name)  # type: ignore[return-value]

    def build(self, bundle: Bundle) -> Bundle:
        self.built += 1
        self.good.add("tensorrt")
        return bundle


def first(names: str, o: Openers, **options: object) -> tuple[Fallback, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    f = open_first(
        open_bundle(), names.split(","), tell=lambda e, n: told.append((str(e), n)), opener=o, build=o.build, **options
    )  # type: ignore[arg-type]
    return f, told


def test_the_first_that_opens_is_used_and_why_another_is_not_is_said_and_counted() -> None:
    f, told = first("tensorrt,onnx", Openers("onnx"))
    assert (f.name, f.fallbacks) == ("onnx", 1) and told == [("no tensorrt: a test → get tensorrt", "onnx")]
    f, told = first("tensorrt,onnx", Openers("onnx", "tensorrt"), max_batch=100)
    assert (f.name, f.fallbacks, told) == ("tensorrt", 0, [])


def test_the_second_takes_batches_as_large_as_the_first_does() -> None:
    o = Openers("onnx", "tensorrt")
    first("tensorrt,onnx", o, max_batch=100)
    assert o.asked == [("tensorrt", 100), ("onnx", 8)]


def test_when_none_opens_the_reason_is_raised() -> None:
    """Once: the caller prints it. What is raised stands for the last; of those before it is told."""
    for names, before in (("tensorrt", []), ("onnx,tensorrt", [("no onnx: a test → get onnx", "")])):
        told: list[tuple[str, str]] = []
        with pytest.raises(EngineError, match="no tensorrt: a test → get tensorrt"):
            open_first(open_bundle(), names.split(","), opener=Openers(), tell=lambda e, n: told.append((str(e), n)))  # noqa: B023
        assert told == before


def test_a_missing_plan_is_built_only_when_told() -> None:
    o = Openers("onnx")
    assert first("tensorrt,onnx", o)[0].name == "onnx" and o.built == 0
    f, told = first("tensorrt,onnx", o, build_missing=True)
    assert (f.name, o.built, told) == ("tensorrt", 1, [])
    o = Openers()
    with pytest.raises(EngineError, match="no onnx"):
        first("onnx", o, build_missing=True)
    assert o.built == 0, "it would not help"


@pytest.mark.parametrize("lost", [True, False])
def test_what_a_new_plan_does_not_mend_builds_none(lost: bool) -> None:
    """Out of memory, above all: the build would take minutes, and put what it made of that in a good plan's place."""

    def opener(bundle: Bundle, name: str, **_: object) -> Engine:
        raise EngineError("the GPU is out of memory", lost=lost)

    with pytest.raises(EngineError, match="out of memory"):
        open_first(
            open_bundle(), ["tensorrt"], build_missing=True, opener=opener, build=lambda b: pytest.fail("it was built")
        )


def test_that_a_plan_is_built_is_said_before() -> None:
    """For minutes there is nothing else to see: no page, no status."""
    o, said = Openers("onnx"), list[str]()
    first("tensorrt,onnx", o, build_missing=True, say=lambda text: said.append(f"{o.built} {text}"))
    (line,) = said
    assert line.startswith("0 building a plan for this machine") and "no tensorrt: a test" in line


def test_a_damaged_bundle_counts_as_an_engine_that_cannot_be_opened() -> None:
    def opener(bundle: Bundle, name: str, **_: object) -> Engine:
        if name == "tensorrt":
            raise BundleError("engine.plan: its sha256 is not the one in manifest.json")
        return Plain(name)  # type: ignore[return-value]

    told: list[str] = []
    f = open_first(open_bundle(), ["tensorrt", "onnx"], opener=opener, tell=lambda e, n: told.append(str(e)))
    assert f.name == "onnx" and "sha256" in told[0]
