"""An AlertSubscriber against a publishing end and a real replay server: gaps, restarts, late joins, silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge.client import AlertSubscriber
from edge.errors import SettingsError
from edge.events import Alert, Event, Status, encode_event
from edge.network.endpoint import Endpoint
from edge.network.keys import make_keys

from ..harness import FakeClock
from .station import ALERT, Station, hear, subscribe

NOBODY = "tcp://127.0.0.1:1"


def test_lost_alerts_are_fetched_and_come_in_order(station: Station) -> None:
    with subscribe(station) as s:
        station.joined()
        station.status()
        station.alert()
        assert hear(s, 1) == [0]
        for _ in range(10):
            station.alert(sent=False)
        station.alert()
        assert hear(s, 11) == list(range(1, 12)) and s.missed == 0
        assert s.receive(0) is None


def test_a_lost_last_alert_is_fetched_when_the_heartbeat_tells(station: Station) -> None:
    with subscribe(station) as s:
        station.joined()
        station.status()
        station.alert()
        station.alert(sent=False)
        station.status()
        assert hear(s, 2) == [0, 1] and s.missed == 0


def test_who_joins_late_hears_from_now_on_or_from_where_it_says(station: Station) -> None:
    for _ in range(9):
        station.alert(sent=False)
    with subscribe(station) as now, subscribe(station, since=3) as late:
        station.joined(4)
        station.status()
        station.alert()
        assert hear(now, 1) == [9] and hear(late, 7) == [3, 4, 5, 6, 7, 8, 9]
        assert now.missed == late.missed == 0


def test_what_was_raised_while_the_engine_restarted_is_fetched(station: Station) -> None:
    with subscribe(station) as s:
        station.joined()
        station.status()
        station.alert()
        assert hear(s, 1) == [0]
        station.alert(sent=False)
        station.restart("r2")
        station.joined(again=s)
        station.alert(sent=False, type="end")
        station.status()
        assert hear(s, 2) == [1, 2] and s.missed == 0


def test_a_new_journal_in_place_of_the_old_is_heard_from_its_beginning(station: Station) -> None:
    with subscribe(station) as s:
        station.joined()
        station.status()
        station.alert()
        assert hear(s, 1) == [0]
        station.record.clear()
        station.restart("r2", "j2")
        station.joined(again=s)
        station.alert(sent=False)
        station.alert()
        station.status()
        assert hear(s, 2) == [0, 1] and s.missed == 0


def test_streams_that_were_not_asked_for_leave_no_gap(station: Station) -> None:
    with subscribe(station, topics=["alert/cam2"]) as s:
        station.joined()
        station.status()
        station.alert(stream="cam1")
        station.alert(stream="cam22", sent=False)
        station.alert(stream="cam1", sent=False)
        station.alert(stream="cam2")
        assert hear(s, 2) == [1, 3] and s.missed == 0


def test_a_nul_at_the_end_asks_for_one_stream_alone(station: Station) -> None:
    with subscribe(station, topics=["alert/cam2\0"]) as s:
        station.joined()
        station.status()
        for stream in ("cam22", "cam2", "cam1", "cam2"):
            station.alert(stream=stream, sent=stream != "cam1")
        assert hear(s, 2) == [1, 3] and s.missed == 0


@pytest.mark.parametrize("since", [-1, 1.5, 2**70, "x", True])
def test_a_number_that_no_alert_has_is_refused_at_once(since: object) -> None:
    with pytest.raises(SettingsError, match=r"since is .*from 0 on"):
        AlertSubscriber("sub+connect:tcp://127.0.0.1:1", since=since)  # type: ignore[arg-type]


def test_a_subscriber_that_cannot_be_made_says_why() -> None:
    with pytest.raises(SettingsError, match="sub"):
        AlertSubscriber(f"pub+connect:{NOBODY}")
    with pytest.raises(SettingsError, match="--allow-remote"):
        AlertSubscriber("sub+connect:tcp://192.0.2.1:5556")
    with pytest.raises(SettingsError, match="cannot bind"):
        AlertSubscriber("sub+bind:ipc:///nonexistent/folder/s")


@pytest.mark.parametrize("topics", [["alerts"], ["alert", "scores"], ["pose/cam1"], ["status/x"], ["Alert"], "alert"])
def test_a_topic_that_nothing_can_match_is_refused(topics: Any) -> None:
    with pytest.raises(SettingsError, match=r"topic.*use|topics=\['alert'\]"):
        AlertSubscriber(f"sub+connect:{NOBODY}", topics=topics)


def test_beginnings_of_topics_are_topics() -> None:
    AlertSubscriber(f"sub+connect:{NOBODY}", topics=["", "al", "alert/", "alert/c", "score", "status", "s"]).close()


@pytest.mark.parametrize("topics", [[1], [b"alert"], b"alert", 5, None, iter(["alert"])])
def test_topics_that_are_no_texts_are_refused(topics: Any) -> None:
    with pytest.raises(SettingsError, match=r"not a list of texts .*topics=\['?\"alert\"'?\]"):
        AlertSubscriber(topics=topics)


@pytest.mark.parametrize("given", [{"endpoint": None}, {"endpoint": b"sub+connect:x"}, {"replay": 5557}])
def test_an_address_that_is_no_text_is_refused_with_one_that_is(given: Any) -> None:
    with pytest.raises(SettingsError, match=r"not understood.*for example (sub|dealer)\+connect"):
        AlertSubscriber(**given)


def test_the_cursor_and_the_keys_may_be_named_by_text(tmp_path: Path) -> None:
    _, client = make_keys(tmp_path / "keys")
    with AlertSubscriber(f"sub+connect:ipc://{tmp_path}/s", cursor=str(tmp_path / "c"), keys=str(client)):
        assert (tmp_path / "c.lock").exists()


def test_updates_that_the_journal_thinned_are_not_missed(station: Station) -> None:
    for n in range(12):
        station.alert(sent=False, type="new" if n % 6 == 0 else "update")
    station.thinned = 9
    with subscribe(station, since=0) as s:
        station.joined()
        station.status()
        assert hear(s, 5) == [0, 6, 9, 10, 11] and s.missed == 0 and not s.gaps


def test_what_the_journal_let_go_is_reported(station: Station) -> None:
    for _ in range(6):
        station.alert(sent=False)
    station.first = 4
    with subscribe(station, since=1) as s:
        station.joined()
        station.status()
        assert hear(s, 2) == [4, 5] and s.missed == 3
        (gap,) = s.gaps
        assert (gap.row, gap.first, gap.after) == ("j1", 1, 4) and "no longer in the journal" in str(gap)


def test_a_replay_that_never_answers_does_not_hold_alerts_back_for_ever(station: Station) -> None:
    assert station.replay
    station.replay.close()
    clock = FakeClock()
    with subscribe(station, clock=clock, patience=10, offline_after=1e9) as s:
        station.joined()
        station.status()
        station.alert()
        assert hear(s, 1) == [0]
        station.alert(sent=False)
        station.alert()
        while not s._rows["j1"].follower._held:
            s._pump(1)
        assert not s._ready
        clock.now += 11
        assert hear(s, 1) == [2] and s.missed == 1 and "no answer" in str(s.gaps[0])


def test_an_engine_without_a_journal_is_heard_as_before(station: Station) -> None:
    station.journal = ""
    with subscribe(station, topics=["alert", "status"]) as s:
        station.joined()
        station.alert()
        station.alert(sent=False)
        station.alert()
        station.alert(sent=False)
        assert hear(s, 2) == [0, 2] and s.missed == 1
        station.status(replay="")
        event = s.receive(10)
        assert isinstance(event, Status) and s.missed == 2


def test_silence_is_offline_and_the_next_heartbeat_is_not(station: Station) -> None:
    clock = FakeClock()
    with subscribe(station, topics=["status"], clock=clock, offline_after=5) as s:
        station.joined(1)
        assert s.state == "offline"
        clock.now += 5
        first = s.receive(1)
        assert isinstance(first, Status) and (first.state, first.run) == ("offline", "")
        station.status()
        assert isinstance(s.receive(10), Status) and s.state == "online"
        clock.now += 4.9
        assert s.receive(0) is None and s.state == "online"
        clock.now += 0.2
        lost = s.receive(1)
        assert isinstance(lost, Status) and lost.state == s.state == "offline" and lost.reason == "no heartbeat for 5 s"
        assert s.receive(0) is None, "said once"
        station.status(state="degraded", reason="the device is gone")
        assert isinstance(s.receive(10), Status) and s.state == "degraded"


def test_who_waited_for_a_slow_engine_is_not_told_afterwards_that_nobody_is_there(station: Station) -> None:
    clock = FakeClock()
    with subscribe(station, topics=["status"], clock=clock, offline_after=5) as s:
        station.joined(1)
        clock.now += 5
        s._pump(0)
        assert s.state == "offline" and len(s._ready) == 1
        station.status()
        assert s.wait(10).state == s.state == "online" and s.receive(0) is None


def test_waiting_loses_no_alert(station: Station) -> None:
    with subscribe(station, topics=["alert", "status"]) as s:
        station.joined()
        station.alert()
        station.status()
        assert s.wait(10).alert_seq == 1
        assert hear(s, 1) == [0]


def test_a_replay_on_another_host_is_not_followed_unasked(station: Station) -> None:
    with subscribe(station) as s:
        station.joined()
        station.status(replay="tcp://192.0.2.1:5557")
        station.alert()
        station.alert(sent=False)
        station.alert()
        assert hear(s, 2) == [0, 2] and s.missed == 1 and "is reachable from other hosts" in str(s.gaps[0])


@pytest.mark.parametrize(
    ("mine", "told", "expected"),
    [
        ("tcp://192.0.2.7:5556", "tcp://0.0.0.0:5557", "tcp://192.0.2.7:5557"),
        ("tcp://[2001:db8::1]:5556", "tcp://[::]:5557", "tcp://[2001:db8::1]:5557"),
        ("tcp://192.0.2.7:5556", "tcp://192.0.2.9:5557", "tcp://192.0.2.9:5557"),
        ("ipc:///tmp/x", "ipc:///tmp/y", "ipc:///tmp/y"),
    ],
)
def test_an_address_of_all_interfaces_is_the_engines_host(mine: str, told: str, expected: str) -> None:
    with AlertSubscriber(f"sub+connect:{mine}", allow_remote=True) as s:
        assert s._reachable(told) == expected


def test_several_engines_in_one_ear_are_kept_apart(tmp_path: Path) -> None:
    """They connect, the subscriber binds: each has its own row of numbers."""
    with (
        zmq.Context() as context,
        AlertSubscriber(f"sub+bind:ipc://{tmp_path}/ear", topics=["alert"], offline_after=1e9) as s,
    ):
        sockets = []
        for _ in range(2):
            sockets.append(Endpoint.parse(f"pub+connect:ipc://{tmp_path}/ear").open(context, hwm=100))
            for _ in range(2):
                while not sockets[-1].poll(0):
                    s.receive(0.01)  # a bound SUB says what it wants while it is used
                sockets[-1].recv()
        events: list[tuple[int, Event]] = [
            (0, replace(ALERT, seq=5, run="a")),
            (1, replace(ALERT, seq=90, run="b")),
            (0, replace(ALERT, seq=6, run="a")),
            (1, replace(ALERT, seq=92, run="b")),
        ]
        got = []
        for at, event in events:
            sockets[at].send(encode_event(event))
            got += hear(s, 1)
        assert got == [5, 90, 6, 92] and s.missed == 1
        context.destroy(0)


def test_numbers_that_a_lost_disk_gives_again_hide_no_alert(station: Station) -> None:
    """Two alerts were published and not written; after the restart their numbers stand for others."""
    with subscribe(station) as s:
        station.joined()
        station.status()
        for n in range(5):
            station.alert(id=f"old{n}")
        assert hear(s, 5) == [0, 1, 2, 3, 4]
        del station.record[3:]
        station.restart("r2")
        station.joined(again=s)
        station.alert(sent=False, id="new3")
        station.status()
        event = s.receive(10)
        assert isinstance(event, Alert) and (event.seq, event.id) == (3, "new3")
        assert "went back" in str(s.gaps[0])
