"""The loop on in-memory ends: accounting, batching, failures, swaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import EngineError
from edge.events import Scores, Status
from edge.motion import make_motion
from edge.skeleton import Float
from edge.support.enrol import SupportSet

from .harness import HeightEngine, LateEngine, bench, decisions, message, person, stand, support_of


def test_a_person_beyond_the_limit_raises_one_alert_and_the_others_none() -> None:
    b = bench(HeightEngine()).play(stand("cam", 4, {1: 0.2, 2: 3.0, 3: -0.5}))
    (new, *rest) = b.sink.alerts()
    assert (new.type, new.stream, new.track, new.seq, new.category) == ("new", "cam", 2, 0, "calm")
    assert new.score == pytest.approx(3.0, rel=1e-3)
    assert [a.type for a in rest] == ["update"] * len(rest)
    assert [a.seq for a in rest] == list(range(1, len(rest) + 1))
    assert {t for _, t, _ in b.sink.scores()} == {1, 2, 3}
    assert new.by.engine == "height-1" and new.by.support == "v1"


def test_the_score_is_relative_to_the_nearest_categorys_limit() -> None:
    support = SupportSet(
        ("a", "b"), np.zeros((2, 8, 8), np.float32), np.ones((2, 8), np.float32), np.array([2.0, 4.0]), (3, 3), "v"
    )
    b = bench(HeightEngine(), support).play(stand("cam", 3, {1: 3.0}))
    assert set(np.round(list(b.sink.scores().values()), 4)) == {0.75}
    assert b.sink.alerts() == []


def test_windows_leave_when_the_batch_is_full() -> None:
    engine = HeightEngine(size=4)
    bench(engine, batch_deadline=1.0).play(stand("cam", 3, dict.fromkeys(range(6), 0.0)))
    assert engine.batches[0] == 4 and max(engine.batches) == 4


def test_windows_leave_when_the_deadline_comes() -> None:
    engine = HeightEngine(size=64)
    b = bench(engine, batch_deadline=0.02)
    b.source.queue = [[m] for m in stand("cam", 2, {1: 0.0})]
    while b.source.queue:
        b.runtime.step(0.0)
    assert engine.batches == [], "the clock stood still"
    before = b.clock.now
    for _ in range(3):
        b.runtime.step(b.runtime.dispatch.patience(0.1) if not engine.batches else 0)
    assert engine.batches == [1]
    assert b.clock.now - before == pytest.approx(0.02)


def test_loss_restarts_and_refusals_are_counted_and_the_others_served() -> None:
    good = stand("cam", 3, {1: 0.1})
    del good[10:15]
    bad: list[bytes | list[bytes]] = [b"", b"pose/x", b"pose/x\0\xc1", [b"a", b"b", b"c"], b"other/x\0\x80"]
    b = bench(HeightEngine()).play([*good[:30], *bad, *good[30:]])
    ledger = b.runtime.ledger
    assert (ledger.frames, ledger.lost) == (len(good), 5)
    assert sum(ledger.dropped.values()) == len(bad)
    assert len(b.sink.scores()) > 3


def test_nan_joints_are_hidden_counted_and_do_not_spoil_the_score() -> None:
    joints = person(0.5)
    joints[4] = np.nan
    joints[5] = 1e30
    frames = [message("cam", k, k / 24, {1: joints}) for k in range(72)]
    b = bench(HeightEngine()).play(frames)
    assert b.runtime.ledger.bad_joints == 2 * 72
    assert set(np.round(list(b.sink.scores().values()), 4)) == {0.5}


def test_a_window_with_too_few_joints_is_not_judged() -> None:
    visible = np.zeros((1, 15), np.float32)
    visible[0, :5] = 1
    frames = [message("cam", k, k / 24, {1: person(9.0)}, visible=visible) for k in range(72)]
    b = bench(HeightEngine(), min_visible=0.4).play(frames)
    assert b.sink.scores() == {} and b.runtime.counts.skipped["too_few_joints"] > 0
    assert bench(HeightEngine(), min_visible=0.3).play(frames).sink.scores() != {}


def test_a_failing_engine_degrades_and_recovers() -> None:
    engine = HeightEngine()
    b = bench(engine).play(stand("cam", 3, {1: 0.1}))
    engine.broken = True
    b.play(stand("cam2", 3, {1: 0.1}))
    assert b.runtime.state == "degraded" and "the device is gone" in b.runtime.reason
    assert b.runtime.counts.skipped["engine_failed"] > 0
    engine.broken = False
    b.play(stand("cam3", 3, {1: 0.1}))
    assert b.runtime.state == "online"
    assert b.sink.states()[-2:] == ["degraded", "online"]


@pytest.mark.parametrize("chance", [0.0, 0.3])
@given(seed=st.integers(0, 10**6), chunk=st.integers(1, 40), size=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_whenever_the_engine_is_done_the_same_is_judged(chance: float, seed: int, chunk: int, size: int) -> None:
    """Late results, tracks that go meanwhile, alerts explained while the next batch is half staged."""

    def reach(c: int, t: int) -> Float:
        joints = person(0.3 * c + 0.5 * t)
        joints[t + c, 1] += 1.0  # and so a joint to blame
        return joints

    heights = [
        [message(f"cam{c}", k, 5 + 0.1 * c + k / 24, {t: reach(c, t) for t in range(4)}) for k in range(72)]
        for c in range(3)
    ]
    ends = [message(f"cam{c}", 72, 8.1, {}, end=True) for c in range(3)]
    frames = [m for turn in zip(*heights, strict=True) for m in turn] + ends
    late = LateEngine(HeightEngine(size), seed, chance)
    expected, found = bench(HeightEngine(size)).play(frames), bench(late).play(frames, chunk)
    assert found.sink.scores() == pytest.approx(expected.sink.scores(), abs=1e-6) and found.sink.scores()
    assert decisions(found) == decisions(expected) != []
    assert {(a.stream, a.track): a.joints for a in found.sink.alerts()} == {
        (a.stream, a.track): a.joints for a in expected.sink.alerts()
    }
    assert late.deepest <= 2 and late.pending == 0


def test_the_next_batch_is_staged_while_the_engine_computes() -> None:
    engine = LateEngine(HeightEngine(4), chance=0.0)
    b = bench(engine)
    b.play(stand("cam", 4, dict.fromkeys(range(8), 0.1)), chunk=1)
    assert engine.deepest == 2 and len(b.sink.scores()) == 8 * 9


def test_what_a_lost_engine_had_is_counted_all_of_it() -> None:
    inner = HeightEngine(4)
    engine = LateEngine(inner, chance=0.0)
    b = bench(engine)
    b.source.queue = [[m] for m in stand("cam", 2.0, dict.fromkeys(range(8), 0.1))]
    while b.source.queue:
        b.runtime.step(0.05)
    assert engine.pending == 2
    inner.broken = True
    b.runtime.dispatch.flush()
    assert b.runtime.counts.skipped["engine_failed"] == 8 and b.runtime.counts.windows == 0
    inner.broken = False
    b.play(stand("cam2", 3, {1: 0.1}))
    assert b.runtime.state == "online" and b.runtime.counts.windows > 4


def test_a_support_set_that_the_engine_refuses_is_said_and_the_old_one_stays() -> None:
    class Small(HeightEngine):
        def bind(self, support: Float, mask: Float) -> None:
            if len(support) > 1:
                raise EngineError("the support set has 2 categories", why="the plan was built for 1 to 1")
            super().bind(support, mask)

    feed = Feed()
    b = bench(Small(), support_of("calm", version="old"), feed=feed)
    feed.next = support_of("calm", "other", version="new")
    b.play(stand("cam", 3, {1: 0.5}))
    assert {e.by.support for e in b.sink.events if isinstance(e, Scores)} == {"old"}
    assert b.runtime.support.version == "old" and b.runtime.counts.swaps == 1
    assert b.runtime.state == "online" and "new is not used: the support set has 2" in b.runtime.status().reason
    feed.next = support_of("calm", version="newer")
    for _ in range(60):
        b.runtime.step(0.05)
    assert b.runtime.support.version == "newer" and b.runtime.status().reason == ""


def test_a_support_folder_that_cannot_be_used_stands_in_the_status() -> None:
    feed = Feed()
    b = bench(HeightEngine(), feed=feed)
    feed.trouble = "the changed support folder is not used: no clips"
    for _ in range(30):
        b.runtime.step(0.05)
    assert [e for e in b.sink.events if isinstance(e, Status)][-1].reason == feed.trouble
    assert b.runtime.state == "online"
    feed.trouble = ""
    for _ in range(30):
        b.runtime.step(0.05)
    assert b.runtime.status().reason == ""


class Feed:
    def __init__(self) -> None:
        self.next: SupportSet | None = None
        self.trouble = ""

    def take(self) -> SupportSet | None:
        found, self.next = self.next, None
        return found


def test_a_support_swap_falls_between_batches_and_results_name_it() -> None:
    feed, engine = Feed(), HeightEngine(size=2)
    b = bench(engine, support_of("calm", version="old"), feed=feed)
    b.play(stand("cam", 3, {1: 0.5}))
    feed.next = support_of("calm", "other", limit=0.25, version="new")
    b.play(stand("cam", 3, {1: 0.5}, start=8.0))
    versions = [(e.by.support, e.score[0]) for e in b.sink.events if hasattr(e, "distance")]
    assert {v: s for v, s in versions} == {"old": pytest.approx(0.5), "new": pytest.approx(2.0)}
    assert [v for v, _ in versions] == sorted((v for v, _ in versions), reverse=True), "never back to the old one"
    assert b.runtime.ledger.lost == 0 and len(engine.bound) == 2


def test_an_update_says_what_it_is_by_the_threshold_that_is_set() -> None:
    b = bench(HeightEngine(), threshold=0.5).play(stand("cam", 8, {1: 0.7}))
    said = {a.reason.partition(" after")[0] for a in b.sink.alerts() if a.type == "update"}
    assert said == {"still abnormal"}


def test_score_messages_are_numbered_by_stream_and_an_end_says_why() -> None:
    b = bench(HeightEngine(1))
    heights = [5.0] * 96 + [0.1] * 120
    b.play([message(cam, k, 5 + k / 24, {1: person(h)}) for k, h in enumerate(heights) for cam in "ab"], chunk=2)
    for cam in "ab":
        numbers = [e.seq for e in b.sink.events if isinstance(e, Scores) and e.stream == cam]
        assert numbers == list(range(len(numbers))) and len(numbers) > 5
    ends = [a for a in b.sink.alerts() if a.type == "end"]
    assert sorted(a.stream for a in ends) == ["a", "b"] and all(a.reason.startswith("normal again after") for a in ends)


def test_the_end_of_a_stream_ends_its_alerts_and_frees_its_tracks() -> None:
    frames = stand("cam", 4, {1: 5.0})
    b = bench(HeightEngine()).play([*frames, message("cam", len(frames), 10.0, {}, end=True)])
    assert b.sink.alerts()[-1].type == "end" and b.sink.alerts()[-1].reason == "the track is gone"
    assert b.runtime.windows.live == 0 and "cam" not in b.runtime.windows.streams


def test_a_stream_that_falls_silent_is_let_go_by_the_wall_clock() -> None:
    b = bench(HeightEngine(), track_timeout=2.0).play(stand("cam", 4, {1: 5.0}))
    assert b.runtime.windows.live == 1
    for _ in range(60):
        b.runtime.step(0.05)
    assert b.runtime.windows.live == 0
    assert b.sink.alerts()[-1].type == "end"


def test_no_score_message_is_made_when_nobody_listens() -> None:
    b = bench(HeightEngine())
    b.sink.deaf = True
    b.play(stand("cam", 4, {1: 5.0}))
    assert b.sink.scores() == {} and b.sink.alerts() and b.runtime.counts.windows > 0


def test_a_new_subscriber_hears_the_status_at_once_and_all_hear_it_every_second() -> None:
    b = bench(HeightEngine())
    b.runtime.step(0)
    said = len(b.sink.states())
    b.runtime.step(0.01)
    assert len(b.sink.states()) == said
    b.sink.fresh = True
    b.runtime.step(0.01)
    assert len(b.sink.states()) == said + 1
    for _ in range(30):
        b.runtime.step(0.1)
    assert len(b.sink.states()) == said + 1 + 3


def test_a_stream_whose_people_stand_on_their_heads_is_told_of() -> None:
    walk = make_motion("walk", seconds=4).joints
    b = bench(HeightEngine())
    for second in range(24):
        b.clock.now += 1
        frames = [(k, walk[k % len(walk)]) for k in range(24 * second, 24 * (second + 1))]
        b.play([message("upright", k, 5 + k / 24, {1: pose}) for k, pose in frames])
        b.play([message("over", k, 5 + k / 24, {1: -pose}) for k, pose in frames])
        b.play([message("over2", k, 5 + k / 24, {1: -pose}) for k, pose in frames])
    told = [line for line in b.told.getvalue().splitlines() if "heads are below hips" in line]
    assert len(told) == 2 and all("stream over" in line for line in told)
    warnings = b.runtime.status().warnings
    assert len(warnings) == 2 and all(f"haad-edge: {w}" in told for w in warnings)


def test_streams_that_are_silent_though_they_did_not_end_stand_in_the_status() -> None:
    b = bench(HeightEngine(), expect="gate,cam", silent_after=5, track_timeout=0.3)
    b.play([*stand("cam", 2, {1: 0.1}), *stand("done", 2, {1: 0.1}), message("done", 48, 9.0, {}, end=True)])
    for seconds, silent in ((5, []), (1.5, ["cam", "gate"]), (30, ["cam", "gate"])):
        for _ in range(int(20 * seconds)):
            b.runtime.step(0.05)
        assert b.runtime.status().silent == silent
    b.play(stand("cam", 2, {1: 0.1}, start=50))
    for _ in range(25):
        b.runtime.step(0.05)
    assert [e.silent for e in b.sink.events if isinstance(e, Status)][-1] == ["gate"]
    assert "silent for 5 s: cam, gate." in b.told.getvalue() and "no longer silent: cam" in b.told.getvalue()


def test_stopping_judges_what_has_arrived_and_says_offline() -> None:
    b = bench(HeightEngine(size=64), batch_deadline=1.0)
    b.source.queue = [[m] for m in stand("cam", 3, {1: 0.3})]
    b.source.chunk = 50
    b.runtime.stop()
    b.runtime.run()
    assert b.sink.states()[-2:] == ["draining", "offline"]
    assert len(b.sink.scores()) == 5


def test_while_the_engine_is_waited_for_nobody_is_taken_for_gone() -> None:
    class Slow(HeightEngine):
        def run(self, n: int) -> tuple[Float, Float]:
            b.clock.now += 3
            return super().run(n)

    b = bench(Slow(4), track_timeout=2.0)
    b.play(stand("cam", 8, {1: 5.0}), chunk=8)
    assert [a.type for a in b.sink.alerts() if a.type != "update"] == ["new"], "what has come meanwhile is not read yet"


def test_a_silent_stream_itself_is_forgotten_after_ten_times_as_long() -> None:
    b = bench(HeightEngine(), track_timeout=2.0).play(stand("cam", 4, {1: 0.1}))
    for seconds, there in ((15, True), (6, False)):
        for _ in range(20 * seconds):
            b.runtime.step(0.05)
        assert b.runtime.windows.live == 0 and ("cam" in b.runtime.windows.streams) == there


@pytest.mark.parametrize(("hidden", "skipped"), [(0, set()), (1, {"too_few_joints"})])
def test_as_many_joints_as_are_asked_for_are_enough(hidden: int, skipped: set[str]) -> None:
    visible = np.ones((1, 15), np.float32)
    visible[0, :hidden] = 0
    frames = [message("cam", k, 5 + k / 24, {1: person()}, visible=visible) for k in range(72)]
    b = bench(HeightEngine(), min_visible=1.0).play(frames)
    assert set(b.runtime.counts.skipped) == skipped and (b.runtime.counts.windows > 0) == (not skipped)


@pytest.mark.parametrize(("visible", "reason"), [(1.0, "not_finite"), (0.0, "too_few_joints")])
def test_one_distance_that_is_no_number_is_enough_and_is_counted_once(visible: float, reason: str) -> None:
    class Odd(HeightEngine):
        def run(self, n: int) -> tuple[Float, Float]:
            z, distance = super().run(n)
            distance[:, 1] = np.nan
            return z, distance

    seen = np.full((1, 15), visible, np.float32)
    frames = [message("cam", k, 5 + k / 24, {1: person()}, visible=seen) for k in range(60)]
    b = bench(Odd(), support_of("calm", "other")).play(frames)
    assert set(b.runtime.counts.skipped) == {reason} and b.runtime.counts.windows == 0
    assert b.runtime.counts.skipped[reason] == sum(b.runtime.engine.batches)  # type: ignore[attr-defined]


def test_the_moment_of_an_alert_lies_in_its_window() -> None:
    frames = [message("cam", k, 5 + k / 24, {1: person(40.0 if k >= 84 else 0.0)}) for k in range(96)]
    alert = bench(HeightEngine(), raise_after=1).play(frames).sink.alerts()[0]
    first, last = (round((t - 5e9) / 1e9, 2) for t in alert.moment)
    assert 3.2 < first < last <= (alert.end - 5e9) / 1e9 + 0.01 and last - first < 0.5
