"""The pipeline against a device that runs everything as late and as badly ordered as its events allow."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.device import Room
from edge.engine.pipeline import Pipeline
from edge.engine.places import DEPTH
from edge.errors import EngineError
from edge.skeleton import Float, J

from .fake import FakeDevice, FakeProgram, FakeRun, expected

T, D = 4, 5
ROOM = Room((1, 16), (1, 3), (1, 4))


def make(
    seed: int = 0,
    *,
    room: Room = ROOM,
    max_batch: int = 8,
    device: FakeDevice | None = None,
    only: bool = False,
    **kw: Any,
) -> tuple[Pipeline, FakeDevice, FakeProgram]:
    device = device or FakeDevice(seed)
    program = FakeProgram(device, D, only)
    pipeline = Pipeline(device, program, room, T, D, max_batch=max_batch, **kw)
    device.seal()
    return pipeline, device, program


def support(seed: int, g: int = 2, k: int = 3) -> tuple[Float, Float]:
    rng = np.random.default_rng([7, seed])
    mask = (np.arange(k) < rng.integers(1, k + 1, (g, 1))).astype(np.float32)
    return rng.standard_normal((g, k, D)).astype(np.float32), mask


def fill(p: Pipeline, n: int, seed: int) -> tuple[Float, Float]:
    rng = np.random.default_rng([3, seed])
    joints = rng.standard_normal((n, T, J, 3)).astype(np.float32)
    visible = (rng.random((n, T, J)) > 0.2).astype(np.float32)
    p.staging.joints[:n], p.staging.visible[:n] = joints, visible
    return joints, visible


def test_run_gives_what_the_program_computes_and_pads_to_the_bucket() -> None:
    p, _, program = make()
    p.bind(*support(0))
    for n in (1, 3, 8, 5):
        given_ = fill(p, n, n)
        place = p.staging
        embedding, distance = p.run(n)
        for found, want in zip((embedding, distance), expected(*given_, *support(0)), strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
        assert p.staging is place and p.pending == 0
    assert set(program.runs) == {1, 4, 8}


def test_results_are_the_caller_s_own() -> None:
    p, *_ = make()
    p.bind(*support(0))
    fill(p, 2, 1)
    first = p.run(2)
    kept = [x.copy() for x in first]
    fill(p, 2, 2)
    p.run(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))


def test_submit_gives_another_buffer_and_results_come_in_order() -> None:
    p, device, _ = make(3)
    p.bind(*support(0))
    places, want = [p.staging], []
    for i in range(DEPTH):
        want.append(expected(*fill(p, 4, i), *support(0))[1])
        p.submit(4)
        places.append(p.staging)
    assert len(set(map(id, places))) == DEPTH and places[DEPTH] is places[0] and p.full and p.pending == DEPTH
    with pytest.raises(RuntimeError, match="collect a result"):
        p.submit(1)
    with pytest.raises(RuntimeError, match="collect a result"):
        p.run(1)
    found = [p.collect() for _ in range(DEPTH)]
    assert not p.full and p.pending == 0
    for distance, d in zip(found, want, strict=True):
        np.testing.assert_allclose(distance, d, rtol=1e-5, atol=1e-6)
    assert device.calls["synchronize"] == DEPTH + DEPTH  # one for each place at the start, and one for each result


def test_ready_is_what_the_oldest_batch_is() -> None:
    p, device, _ = make()
    p.bind(*support(0))
    assert not p.ready, "nothing was submitted"
    fill(p, 2, 0)
    p.submit(2)
    device.drain()
    fill(p, 2, 1)
    p.submit(2)
    assert p.ready
    p.collect()
    assert not p.ready


def test_an_error_that_is_no_loss_leaves_the_device_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    p, *_ = make()
    p.bind(*support(0))
    want = expected(*fill(p, 2, 0), *support(0))

    def refuse(*_: object) -> None:
        raise EngineError("TensorRT refuses joints")

    with monkeypatch.context() as m, pytest.raises(EngineError, match="refuses joints"):
        m.setattr(FakeRun, "point", refuse)
        p.submit(2)
    assert p.pending == 0
    np.testing.assert_allclose(p.run(2)[1], want[1], rtol=1e-5, atol=1e-6)


def test_embeddings_come_back_from_a_run_alone() -> None:
    p, device, _ = make()
    p.bind(*support(0))
    fill(p, 3, 0)
    p.submit(3)
    assert device.calls["copy_out"] == 1
    p.collect()
    fill(p, 3, 0)
    p.run(3)
    assert device.calls["copy_out"] == 1 + 2


def test_each_bucket_is_captured_once_for_each_place_and_replayed_from_then_on() -> None:
    p, device, program = make()
    p.bind(*support(0))
    p.warm()
    assert device.calls["capture"] == DEPTH * len(p.buckets) == len(device.graphs)
    pointed = len(program.runs)
    for i in range(20):
        want = expected(*fill(p, 1 + i % 8, i), *support(0))
        p.submit(1 + i % 8)
        np.testing.assert_allclose(p.collect(), want[1], rtol=1e-5, atol=1e-6)
    assert device.calls["replay"] == 20 and len(program.runs) == pointed
    assert device.calls["capture"] == DEPTH * len(p.buckets)


def test_a_program_with_one_run_only_is_pointed_anew_for_each_batch_and_not_captured() -> None:
    """As a plan of TensorRT 8.5, whose profile belongs to one execution context."""
    p, device, program = make(only=True)
    p.bind(*support(0))
    for i, n in enumerate((1, 8, 3, 8, 1)):
        want = expected(*fill(p, n, i), *support(0))
        p.submit(n)
        np.testing.assert_allclose(p.collect(), want[1], rtol=1e-5, atol=1e-6)
    assert program.runs == [1, 8, 4, 8, 1] and device.calls["capture"] == 0


def test_a_support_of_the_same_shape_keeps_the_graphs_and_another_shape_drops_them() -> None:
    p, device, _ = make()
    for i in range(3):
        p.bind(*support(i))
        p.warm()
    both = 2 * DEPTH * len(p.buckets)
    assert device.calls["capture"] == both and device.calls["forget"] == 0
    p.bind(*support(9, 3, 1))
    want = expected(*fill(p, 8, 0), *support(9, 3, 1))
    np.testing.assert_allclose(p.run(8)[1], want[1], rtol=1e-5, atol=1e-6)
    assert device.calls["forget"] == DEPTH * len(p.buckets)


@pytest.mark.parametrize("how", ["asked", "refused"])
def test_without_graphs_it_computes_the_same(how: str) -> None:
    device = FakeDevice()
    device.can_capture = how == "asked"
    p, device, _ = make(device=device, graphs=how == "refused")
    p.bind(*support(0))
    for i in range(6):
        want = expected(*fill(p, 1 + i, i), *support(0))
        np.testing.assert_allclose(p.run(1 + i)[1], want[1], rtol=1e-5, atol=1e-6)
    assert device.calls["replay"] == 0
    assert device.calls["capture"] == (0 if how == "asked" else 4)  # not tried again for the same bucket


def test_a_batch_under_way_is_judged_by_the_support_it_was_submitted_with() -> None:
    p, *_ = make(5)
    p.bind(*support(0))
    old = expected(*fill(p, 4, 0), *support(0))
    p.submit(4)
    for i in range(1, 5):  # each place is written twice while the batch is under way
        p.bind(*support(i, 1 + i % 3, 1 + i % 4))
    new = expected(*fill(p, 4, 1), *support(4, 2, 1))
    p.submit(4)
    np.testing.assert_allclose(p.collect(), old[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(p.collect(), new[1], rtol=1e-5, atol=1e-6)


def test_the_first_support_warms_up_where_that_is_asked_for() -> None:
    p, device, _ = make(warm=True)
    assert device.calls["capture"] == 0
    p.bind(*support(0))
    assert device.calls["capture"] == DEPTH * len(p.buckets)
    p.bind(*support(1))
    assert device.calls["capture"] == DEPTH * len(p.buckets)
    p.close()
    assert device.closed


def test_embeddings_can_be_had_before_there_is_a_support() -> None:
    p, *_ = make()
    joints, visible = fill(p, 3, 0)
    want = expected(joints, visible, *support(0))[0]
    np.testing.assert_allclose(p.run(3)[0], want, rtol=1e-5, atol=1e-6)


def test_a_support_without_room_is_refused_and_the_old_one_stays() -> None:
    p, *_ = make()
    assert p.categories == 3
    p.bind(*support(0))
    for g, k, said in (
        (4, 2, r"4 categories.*1 to 3.*--support 1:4:4x1:4:4"),
        (1, 5, "5 windows.*1 to 4.*1:3:3x1:5:5"),
    ):
        with pytest.raises(EngineError, match=said) as e:
            p.bind(*support(1, g, k))
        assert not e.value.lost
    want = expected(*fill(p, 2, 0), *support(0))
    np.testing.assert_allclose(p.run(2)[1], want[1], rtol=1e-5, atol=1e-6)


def test_a_support_smaller_than_the_plan_takes_is_refused_too() -> None:
    p, *_ = make(room=Room((1, 16), (2, 3), (2, 4)))
    for g, k, said in ((1, 2, "1 categories.*2 to 3"), (2, 1, "1 windows.*2 to 4")):
        with pytest.raises(EngineError, match=said):
            p.admit(support(0, g, k)[0])
    with pytest.raises(EngineError) as e:
        p.admit(support(0, 4, 5)[0])
    assert e.value.fix == "haad-edge build BUNDLE --target tensorrt --support 2:4:4x2:5:5"


def test_batches_are_as_large_as_asked_and_as_the_program_takes() -> None:
    assert make(max_batch=100)[0].staging.size == 16 and make(max_batch=6)[0].staging.size == 6
    p, _, program = make(room=Room((4, 16), (1, 2), (1, 4)), max_batch=2)
    p.bind(*support(0))
    want = expected(*fill(p, 2, 0), *support(0))
    np.testing.assert_allclose(p.run(2)[1], want[1], rtol=1e-5, atol=1e-6)
    assert p.staging.size == 2 and set(program.runs) == {4}
    for n in (0, 3):
        with pytest.raises(ValueError, match=f"{n} windows of at most 2"):
            p.submit(n)


@pytest.mark.parametrize("after", [*range(0, 40, 3), 57, 93, 200])
def test_a_lost_device_is_said_at_once_and_never_touched_again(after: int) -> None:
    p, device, _ = make(after)
    p.bind(*support(0))
    device.lose_after = after
    raised = 0
    for i in range(30):
        try:
            if not p.full:
                fill(p, 3, i)
                p.submit(3)
            if p.full:
                p.collect()
            if i % 5 == 0:
                p.bind(*support(i))
        except EngineError as e:
            assert e.lost and "pulled it out" in str(e)
            raised += 1
    assert raised > 5
    calls = sum(device.calls.values())
    for call in (lambda: p.bind(*support(0)), lambda: p.run(1), p.warm):
        with pytest.raises((EngineError, RuntimeError)):
            call()
    assert sum(device.calls.values()) == calls
    assert np.isfinite(p.staging.joints).all()  # another engine reads what lies there
    p.close()
    assert not device.closed and sum(device.calls.values()) == calls


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.integers(1, 8)),
        st.tuples(st.just("bind"), st.integers(0, 10**6)),
        st.tuples(st.just("collect"), st.just(0)),
        st.tuples(st.just("run"), st.integers(1, 8)),
    ),
    max_size=40,
)


@given(seed=st.integers(0, 10**6), actions=ACTIONS, only=st.booleans())
@settings(max_examples=200, deadline=None)
def test_whatever_the_order_every_result_is_right(seed: int, actions: list[tuple[str, int]], only: bool) -> None:
    p, device, _ = make(seed, only=only)
    bound = support(0)
    p.bind(*bound)
    want: deque[tuple[Float, Float]] = deque()
    for i, (what, n) in enumerate(actions):
        if what in ("batch", "run") and p.full:
            np.testing.assert_allclose(p.collect(), want.popleft()[1], rtol=1e-4, atol=1e-5)
        if what == "batch":
            want.append(expected(*fill(p, n, i), *bound))
            p.submit(n)
        elif what == "run":
            now = expected(*fill(p, n, i), *bound)
            for found, w in zip(p.run(n), now, strict=True):
                np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-5)
        elif what == "bind":
            bound = support(n, 1 + n % 3, 1 + n % 4)
            p.bind(*bound)
        elif want:
            np.testing.assert_allclose(p.collect(), want.popleft()[1], rtol=1e-4, atol=1e-5)
    while want:
        np.testing.assert_allclose(p.collect(), want.popleft()[1], rtol=1e-4, atol=1e-5)
    device.drain()
