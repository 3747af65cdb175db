"""What all bridges share: the cursor moves after delivery, a receiver that is away is waited for, a refusal is kept."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bridge.core import FIRST_S, MOST_S, REFUSALS, Bridge, Refused, Unavailable, append, as_json
from edge.client.follow import Gap
from edge.errors import WireError
from edge.events import Alert, Event, Provenance, Status
from edge.notices import Notices

BY = Provenance("m", "e", "s")
ALERT = Alert("i", "new", 0, "r", "cam1", 5, 1, 2, 1.5, 1.5, "walk", ("head",), "unlike 'walk'", BY, "j")
STATUS = Status(0, "r", "online", "", 1.0, 0, 0, 0, 0, 0, 0, BY)


class Ear:
    """A subscriber's part of the seam: hands out events, and notes what had been delivered at each commit."""

    def __init__(self, events: Sequence[Event | WireError], target: Receiver) -> None:
        self.events, self.target, self.commits = deque(events), target, []  # type: ignore[var-annotated]
        self.gaps: deque[Gap] = deque()

    def receive(self, timeout: float | None = None) -> Event | None:
        event = self.events.popleft() if self.events else None
        if isinstance(event, WireError):
            raise event
        return event

    def commit(self) -> None:
        self.commits.append(len(self.target.got))


class Receiver:
    """Takes alerts; `answers` are what it says to the next ones: a number taken, or an error."""

    def __init__(self, answers: Sequence[int | Exception] = (), most: int = 3) -> None:
        self.answers, self.most = deque(answers), most
        self.got: list[int] = []
        self.states: list[str] = []
        self.refusals = self.shows = 0
        self.stopped = False

    def deliver(self, alerts: Sequence[Alert]) -> int:
        answer = self.answers.popleft() if self.answers else len(alerts)
        if isinstance(answer, Exception):
            raise answer
        self.got += [a.seq for a in alerts[:answer]]
        return answer

    def show_status(self, status: Status) -> None:
        self.shows += 1
        if self.refusals:
            self.refusals -= 1
            raise (Refused if self.refusals % 2 else Unavailable)("not there")
        self.states.append(status.state)

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None: ...


def made(
    tmp_path: Path, events: Sequence[Event | WireError], target: Receiver
) -> tuple[Bridge, Ear, list[float], io.StringIO]:
    ear, waits, said = Ear(events, target), [], io.StringIO()  # type: ignore[var-annotated]
    bridge = Bridge(
        ear,  # type: ignore[arg-type]
        target,
        Notices(said, every=0),
        aside=tmp_path / "aside.jsonl",
        pause=waits.append,
        jitter=lambda: 1.0,
    )
    return bridge, ear, waits, said


def alerts(count: int) -> list[Alert]:
    return [replace(ALERT, seq=n) for n in range(count)]


def test_the_cursor_moves_after_each_batch_and_not_before(tmp_path: Path) -> None:
    target = Receiver()
    bridge, ear, _, _ = made(tmp_path, alerts(7), target)
    assert [bridge.step(0) for _ in range(4)] == [3, 3, 1, 0]
    assert target.got == list(range(7)) and ear.commits == [3, 6, 7, 7]


def test_a_receiver_that_is_away_is_waited_for_longer_each_time(tmp_path: Path) -> None:
    target = Receiver([Unavailable("gone")] * 10 + [2, Unavailable("gone"), 1])
    bridge, ear, waits, said = made(tmp_path, alerts(3), target)
    assert bridge.step(0) == 3 and target.got == [0, 1, 2] and ear.commits == [3]
    assert waits == [*(min(MOST_S, FIRST_S * 2**n) for n in range(10)), FIRST_S]
    assert said.getvalue().count("not delivered") == 11 and "delivered again" in said.getvalue()


def test_a_stop_in_the_middle_leaves_the_cursor_where_it_was(tmp_path: Path) -> None:
    target = Receiver([1, Unavailable("gone")])
    bridge, ear, _, _ = made(tmp_path, alerts(3), target)
    bridge._pause = lambda _: bridge.stop()
    assert bridge.step(0) == 1 and ear.commits == [] and bridge.delivered == 1 and target.stopped


def test_a_delivery_that_a_stop_ends_is_not_tried_again(tmp_path: Path) -> None:
    target = Receiver([Unavailable("to end")])
    bridge, ear, waits, said = made(tmp_path, alerts(3), target)
    deliver = target.deliver

    def stopped(alerts: Sequence[Alert]) -> int:
        bridge.stop()
        return deliver(alerts)

    target.deliver = stopped  # type: ignore[method-assign]
    assert bridge.step(0) == 0 and not ear.commits and not waits
    assert said.getvalue() == "haad-edge: not delivered: to end\n"


def test_an_alert_that_is_refused_for_good_is_put_aside_and_the_next_delivered(tmp_path: Path) -> None:
    target = Receiver([1, *[Refused("422")] * REFUSALS])
    bridge, ear, _, said = made(tmp_path, alerts(3), target)
    assert bridge.step(0) == 3 and target.got == [0, 2] and bridge.refused == 1 and len(ear.commits) == 1
    assert [json.loads(x)["seq"] for x in (tmp_path / "aside.jsonl").read_text().splitlines()] == [1]
    assert "set aside" in said.getvalue()


def test_a_state_after_which_nothing_comes_is_passed_on_until_it_arrives(tmp_path: Path) -> None:
    target = Receiver()
    target.refusals = 3
    bridge, _, _, said = made(tmp_path, [*alerts(1), replace(STATUS, state="offline")], target)
    now = [100.0]
    bridge._clock = lambda: now[0]
    bridge.step(0)
    assert target.states == [] and said.getvalue().count("state is not delivered yet: not there") == 1
    for shows, pause in ((1, 0.5), (2, 1.0), (3, 2.0)):
        now[0] += 0.9 * pause
        bridge.step(0)
        assert target.shows == shows, "an idle bridge does not pester a receiver that is away"
        now[0] += 0.2 * pause
        bridge.step(0)
    assert target.states == ["offline"] and not target.refusals
    bridge.step(0)
    target.refusals = 1
    bridge.step(0)
    now[0] += 0.6
    bridge.step(0)
    assert target.states == ["offline"] * 3, "the waits begin anew"


def test_states_gaps_and_broken_messages_are_said(tmp_path: Path) -> None:
    target = Receiver()
    degraded = replace(STATUS, state="degraded", reason="no disk")
    broken = WireError("msgpack", "not msgpack")
    bridge, ear, _, said = made(tmp_path, [STATUS, STATUS, broken, degraded, *alerts(1)], target)
    ear.gaps.append(Gap("j", 4, 9, "no longer in the journal"))
    assert bridge.step(0) == 1
    assert target.states == ["online", "online", "degraded"]
    text = said.getvalue()
    assert text.count("engine online") == 1 and "engine degraded: no disk" in text
    assert "5 alerts missed, seq 4 to 8" in text and "message dropped" in text and not ear.gaps


def test_json_holds_every_field_in_one_line() -> None:
    m = json.loads(as_json(replace(ALERT, stream="Tor\n2 ß")))
    assert m["by"] == {"model": "m", "engine": "e", "support": "s"} and m["joints"] == ["head"]
    assert set(m) == {f for f in Alert.__dataclass_fields__} and "\n" not in as_json(replace(ALERT, stream="a\nb"))


def test_lines_are_added_whole(tmp_path: Path) -> None:
    append(tmp_path / "d" / "f", ["a", "b"])
    append(tmp_path / "d" / "f", ["c"])
    assert (tmp_path / "d" / "f").read_text() == "a\nb\nc\n"
    with pytest.raises(OSError):
        append(Path("/dev/full"), ["x"])


def test_an_engine_without_a_journal_is_told_of_once_each_time_it_turns_up(tmp_path: Path) -> None:
    kept, offline = replace(STATUS, journal="j"), replace(STATUS, run="", state="offline")
    bridge, _, _, said = made(tmp_path, [STATUS, STATUS, kept, kept, offline, offline, STATUS, STATUS], Receiver())
    bridge.step(0)
    assert said.getvalue().count("the engine has no journal") == 2
