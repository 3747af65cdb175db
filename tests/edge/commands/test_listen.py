"""What `haad-edge listen` prints, and what it keeps to itself."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from edge.client.follow import Gap
from edge.commands.listen import listen
from edge.errors import WireError
from edge.events import Alert, Event, Provenance, Status

from ..harness import FakeClock

BY = Provenance("m", "e", "s")
ALERT = Alert("i", "new", 0, "r", "cam1", 5, 1, 2, 1.5, 1.5, "walk", (), "unlike 'walk'", BY, "j")
STATUS = Status(0, "r", "online", "", 1.0, 0, 0, 0, 0, 0, 0, BY)


class Ear:
    """Hands out (seconds later, event)."""

    def __init__(self, clock: FakeClock, events: Sequence[tuple[float, Event | WireError]]) -> None:
        self.clock, self.events, self.commits = clock, deque(events), 0
        self.gaps: deque[Gap] = deque()

    def receive(self, timeout: float | None = None) -> Event | None:
        if not self.events or (timeout is not None and self.events[0][0] > timeout):
            self.clock.now += timeout or 0
            return None
        after, event = self.events.popleft()
        self.clock.now += after
        if isinstance(event, WireError):
            raise event
        return event

    def commit(self) -> None:
        self.commits += 1


def heard(events: list[tuple[float, Event]], capsys: pytest.CaptureFixture[str], **options: object) -> list[dict]:  # type: ignore[type-arg]
    clock = FakeClock()
    ear = Ear(clock, events)
    listen(ear, **{"as_json": True, "status": False, "count": 0, "timeout": 10, "clock": clock, **options})  # type: ignore[arg-type]
    return [json.loads(x) for x in capsys.readouterr().out.splitlines()]


def states(*names: str) -> list[tuple[float, Event]]:
    return [(1.0, replace(STATUS, state=n)) for n in names]  # type: ignore[arg-type]


def test_of_the_heartbeat_only_changes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    events = [*states("online", "online", "offline", "offline", "online"), (0.0, ALERT), *states("degraded")]
    got = heard(events, capsys)
    assert [m.get("state", m["kind"]) for m in got] == ["offline", "online", "alert", "degraded"]


def test_streams_that_fall_silent_or_cannot_be_judged_are_printed_once_and_so_is_their_return(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = [
        {},
        {"silent": ["gate"]},
        {"silent": ["gate"]},
        {"silent": ["gate"], "warnings": ["stream hall: odd"]},
        {},
    ]
    got = heard([(1.0, replace(STATUS, **c)) for c in changes], capsys)  # type: ignore[arg-type]
    assert [(m["silent"], m["warnings"]) for m in got] == [
        (["gate"], []), (["gate"], ["stream hall: odd"]), ([], [])
    ]  # fmt: skip


def test_a_status_line_says_when_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now().replace(microsecond=0)
    clock = FakeClock()
    listen(Ear(clock, states("degraded")), as_json=False, status=False, count=0, timeout=5, clock=clock)  # type: ignore[arg-type]
    time, _, rest = capsys.readouterr().out.partition("  ")
    said = datetime.combine(before.date(), datetime.strptime(time, "%H:%M:%S.%f").time())
    assert 0 <= (said - before).seconds <= 30 and rest.startswith("status degraded")


def test_with_status_all_of_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(heard(states("online", "online", "offline"), capsys, status=True)) == 3


def test_heartbeats_do_not_break_the_silence(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[tuple[float, Event]] = [(0.0, ALERT), *states(*["online"] * 20), (0.0, replace(ALERT, seq=1))]
    assert [m["seq"] for m in heard(events, capsys)] == [0]


def test_it_stops_after_so_many_and_names_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    ear = Ear(clock, [(0.0, replace(ALERT, seq=n)) for n in range(5)])
    ear.gaps.append(Gap("j", 3, 5, "no longer in the journal"))
    listen(ear, as_json=False, status=False, count=2, timeout=None, clock=clock)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert said.out.count("unlike 'walk'") == 2 and ear.commits == 2
    assert "2 alerts missed, seq 3 to 4" in said.err


def test_a_gap_is_said_with_the_heartbeat_that_told_of_it_or_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock, said = FakeClock(), []
    ear = Ear(clock, states("online", "online", "online"))
    receive = ear.receive

    def told(timeout: float | None = None) -> Event | None:
        said.append("missed" in capsys.readouterr().err)
        event = receive(timeout)
        if len(said) in (2, 4):  # at a heartbeat, and while the silence ends
            ear.gaps.append(Gap("j", 0, 9, "the replay gave no answer for 10 s"))
        return event

    ear.receive = told  # type: ignore[method-assign]
    listen(ear, as_json=True, status=False, count=0, timeout=10, clock=clock)  # type: ignore[arg-type]
    assert said == [False, False, True, False] and "9 alerts missed, seq 0 to 8" in capsys.readouterr().err


NO_JOURNAL, NO_REPLAY = "has no journal", "replay, which serves the journal, is off"
ON_RECORD = replace(STATUS, journal="j", replay="tcp://127.0.0.1:5557")


@pytest.mark.parametrize(
    ("status", "options", "words"),
    [
        (STATUS, {"past": True}, NO_JOURNAL),
        (STATUS, {"past": True, "replay": True}, NO_JOURNAL),
        (replace(STATUS, journal="j"), {"past": True}, NO_REPLAY),
        (replace(STATUS, journal="j"), {"past": True, "replay": True}, ""),
        (ON_RECORD, {"past": True}, ""),
        (STATUS, {}, ""),
        (replace(STATUS, run="", state="offline"), {"past": True}, ""),
    ],
)
def test_who_asks_for_the_past_of_an_engine_that_has_none_is_told_once(
    capsys: pytest.CaptureFixture[str], status: Status, options: dict[str, bool], words: str
) -> None:
    clock = FakeClock()
    listen(Ear(clock, [(1.0, status)] * 3), as_json=True, status=False, count=0, timeout=10, clock=clock, **options)  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert words in err and err.count("have no effect") == bool(words)


def test_what_cannot_be_read_is_told_of_once_in_a_while_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = FakeClock()
    odd = WireError("version", "'v' is 2", why="this program reads 1")
    events = [(0.0, odd), (1.0, odd), (0.0, ALERT), (1.0, WireError("event", "an incomplete Alert message"))]
    listen(Ear(clock, events), as_json=False, status=False, count=0, timeout=5, clock=clock)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert said.out.count("unlike 'walk'") == 1
    assert said.err.splitlines() == [
        "haad-edge: message dropped: 'v' is 2: this program reads 1",
        "haad-edge: message dropped: an incomplete Alert message",
    ]
