"""Streams that fall silent, never come, or cannot be judged are known; those that end or go on are not."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.grid import WindowSpec
from edge.ingest.health import NAMED, StreamHealth, named
from edge.notices import Notices
from edge.runtime import LISTED
from edge.skeleton import Float
from edge.windows import Windows
from tests.edge.harness import HeightEngine, bench, message, person

SPEC = WindowSpec.of(48, 2.0, 0.5, 0.5, 3.0)
AFTER, FORGOTTEN = 10.0, 20.0


class World:
    """Streams that send, stop and end, looked at once a second; one silent for long is forgotten, as in the loop."""

    def __init__(self, *expected: str, after: float = AFTER, most: int = 256) -> None:
        self.now, self.told = 100.0, io.StringIO()
        self.windows = Windows(SPEC, 4, 4096)
        self.health = StreamHealth(expected, after, most, Notices(self.told, clock=lambda: self.now), self.now)

    def second(self, *senders: str, ending: str = "", n: int = 1) -> tuple[str, ...]:
        """`n` more seconds, of which the senders send, and one may end; returns who is silent then."""
        for _ in range(n):
            self.now += 1
            for name in senders:
                stream = self.windows.stream_named(name)
                assert stream
                stream.heard, stream.t = self.now, int(self.now * 1e9)
            if ending:
                stream = self.windows.stream_named(ending)
                assert stream
                stream.heard = self.now
                self.windows.drop_stream(stream)
                self.health.ended(stream)
            for stream in list(self.windows.streams.values()):
                if self.now - stream.heard > FORGOTTEN:
                    self.windows.drop_stream(stream)
            self.health.check(self.windows, self.now)
        return self.health.silent

    def lines(self) -> list[str]:
        return [line.removeprefix("haad-edge: ") for line in self.told.getvalue().splitlines()]


def test_a_stream_that_stops_is_silent_until_it_is_heard_again_however_long_that_takes() -> None:
    world = World()
    assert world.second("a", "b", n=3) == ()
    assert world.second("b", n=10) == () and world.second("b") == ("a",)
    assert world.second("b", n=100) == ("a",), "also when the loop has long forgotten it"
    assert "a" not in world.windows.streams
    assert world.second("a", "b") == ()
    asked = "Does the tracker run there, and does it send frames without people too?"
    assert world.lines() == [f"silent for 10 s: a. {asked}", "no longer silent: a"]


def test_a_stream_that_ends_is_not_silent_even_if_it_was_when_it_ended() -> None:
    world = World()
    world.second("a", "b", n=3)
    assert world.second("b", ending="a", n=1) == () == world.second("b", n=50)
    assert world.second(n=15) == ("b",)
    assert world.second("b", ending="b") == () == world.second(n=50)
    assert len(world.lines()) == 1


def test_a_stream_that_was_forgotten_in_its_silence_and_then_says_only_that_it_ends_is_silent_no_more() -> None:
    world = World("a")
    world.second("a", "b")
    assert world.second(n=30) == ("a", "b") and not world.windows.streams
    assert world.second(ending="b") == ("a",)
    assert world.second(ending="a") == (), "it was heard just now"
    assert world.second(n=11) == ("a",), "which is expected all the same"


def test_what_is_expected_is_silent_if_it_never_comes_and_if_it_ended() -> None:
    world = World("a", "never")
    assert world.second("a", n=10) == () and world.second("a") == ("never",)
    world.second("a", ending="a")
    assert world.second(n=10) == ("never",) and world.second() == ("a", "never")
    assert world.second("a", "never") == ()


def test_zero_is_never() -> None:
    world = World("a", after=0)
    assert world.second("b") == () == world.second(n=1000)
    assert world.told.getvalue() == ""


def test_many_that_stop_at_once_are_one_line() -> None:
    world, streams = World(), [f"s{k:02}" for k in range(NAMED + 3)]
    world.second(*streams)
    assert len(world.second(n=12)) == NAMED + 3
    (line,) = world.lines()
    assert "s09 and 3 more. " in line and "s10" not in line


def test_ages_are_those_of_all_that_should_be_there() -> None:
    world = World("a", "b")
    world.second("b", "c", "d")
    world.second("b", "c", ending="d")
    world.second("b")
    assert {n: world.now - heard for n, heard in world.health.heard.items()} == {"a": 3, "b": 0, "c": 1}


def test_of_streams_that_come_and_go_without_an_end_only_the_latest_are_remembered() -> None:
    world = World("kept", most=3)
    for k in range(60):
        world.second(f"s{k:02}")
    assert world.second(n=int(FORGOTTEN) + 2) == ("kept", "s57", "s58", "s59")
    assert len(world.health.heard) == 4


@given(st.lists(st.sets(st.sampled_from("abc")), max_size=60))
def test_silent_are_those_not_heard_for_so_long(seconds: list[set[str]]) -> None:
    world, last = World(), dict[str, float]()
    for senders in seconds:
        silent = world.second(*senders)
        last |= dict.fromkeys(senders, world.now)
        assert silent == tuple(sorted(n for n, heard in last.items() if world.now - heard > AFTER))


def test_a_stream_that_cannot_be_judged_stands_among_the_warnings_and_is_told_of_once() -> None:
    world = World()
    for k in range(30):
        world.second("good")
        slow = world.windows.stream_named("slow")
        assert slow
        slow.heard, slow.t = world.now, 1000 * k
        world.health.check(world.windows, world.now)
    (warning,) = world.health.warnings
    assert warning.startswith("stream slow: in 5 s its 't'") and world.lines() == [warning]
    assert world.second("good", n=5) == () and world.health.warnings == [], "it has stopped: that is something else"


@pytest.mark.parametrize(
    ("streams", "text"),
    [(["a"], "a"), (["a", "b"], "a, b"), (list("abcdefghijkl"), "a, b, c, d, e, f, g, h, i, j and 2 more")],
)
def test_a_line_names_a_few(streams: list[str], text: str) -> None:
    assert named(streams) == text


def test_the_loop_hears_an_end_that_comes_after_a_long_silence() -> None:
    b = bench(HeightEngine(), track_timeout=1.0, expect="b")
    b.play([message(name, 0, 5.0, {}) for name in "abcd"])
    for _ in range(150):
        b.runtime.step(0.1)
    assert b.runtime.status().silent == ["a", "b", "c", "d"] and not b.runtime.windows.streams
    b.play([message("a", 1, 20.0, {}, end=True), message("b", 1, 20.0, {}, end=True)])
    for _ in range(15):
        b.runtime.step(0.1)
    assert b.runtime.status().silent == ["c", "d"]
    assert sorted(b.runtime.health.heard) == ["b", "c", "d"]


def test_while_the_loop_waits_for_the_engine_nobody_falls_silent() -> None:
    class Slow(HeightEngine):
        def run(self, n: int) -> tuple[Float, Float]:
            b.clock.now += 15.0
            return super().run(n)

    b = bench(Slow(), overload="wait")
    b.play([message("a", n, 5 + n / 24, {1: person()}) for n in range(200)], chunk=20)
    assert b.clock.now > 1050 and "silent" not in b.told.getvalue()


def test_a_status_lists_no_more_than_a_hundred() -> None:
    b = bench(HeightEngine(), expect=",".join(f"s{n}" for n in range(LISTED + 50)))
    for _ in range(120):
        b.runtime.step(0.1)
    b.runtime.health._found[0] = {f"s{n}": "odd" for n in range(LISTED + 50)}
    status = b.runtime.status()
    assert len(b.runtime.health.silent) == LISTED + 50
    assert status.silent == sorted(b.runtime.health.silent)[:LISTED] and len(status.warnings) == LISTED


class Flapping:
    """Finds something at every other look."""

    def __init__(self, text: str) -> None:
        self.text, self.looks = text, list[float]()

    def find(self, windows: Windows, now: float) -> dict[str, str]:
        self.looks.append(now)
        return {"a": self.text} if len(self.looks) % 2 else {}


def test_what_comes_and_goes_is_told_of_rarely_but_each_kind_of_it() -> None:
    world, checks = World(), (Flapping("odd"), Flapping("strange"))
    world.health._checks, world.health._found = checks, [{}, {}]
    world.second("a", n=9)
    assert world.lines() == ["stream a: odd", "stream a: strange"]
    assert checks[0].looks == [world.now - 8 + n for n in range(9)]


def test_streams_that_send_are_remembered_however_many_are_gone() -> None:
    world = World(most=2)
    world.second("x", "y", "z")
    world.second("a", "b", "c", n=30)
    assert len(world.health.heard) == 5 and {"a", "b", "c"} < world.health.heard.keys()
