"""Alerts on their way out: on disk before anybody hears them, and heard also where there is no disk."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.alerts.announce import Announcer
from edge.alerts.book import Change
from edge.events import Status
from edge.grid import WindowSpec
from edge.journal.outbox import SharedSink
from edge.journal.store import Entry, Journal
from edge.journal.trim import Bounds
from edge.windows import Windows

from ..harness import MemorySink
from .box import ALERT, STATUS, Box, slow


def test_an_alert_is_on_disk_when_it_is_published(box: Box) -> None:
    for n in range(20):
        box.alert(id=f"a{n}")
    alerts = box.sink.until(20)
    assert [a.seq for a in alerts] == list(range(20)) and {a.journal for a in alerts} == {box.journal.id}
    for n, on_disk in enumerate(box.sink.on_disk):
        assert n in on_disk
    assert box.announcer.alert_seq == 20
    status = box.status()
    assert (status.alert_seq, status.journal, status.state) == (20, box.journal.id, "online")


def test_the_status_counts_only_what_was_published(journal: Journal) -> None:
    box = Box(journal, start=False)
    box.alert()
    assert box.status().alert_seq == 0 and box.sink.alerts() == []
    box.outbox.start()
    box.sink.until(1)
    assert box.status().alert_seq == 1
    box.outbox.close()


def test_goodbye_comes_after_every_alert(box: Box) -> None:
    for n in range(50):
        box.alert(id=f"a{n}")
    box.status(state="offline", reason="stopped")
    kinds = [type(e).__name__ for e in box.sink.events]
    assert kinds == ["Alert"] * 50 + ["Status"]


def test_only_an_update_of_what_stands_is_passing(box: Box) -> None:
    box.announcer._windows.stream[0] = SimpleNamespace(name="cam1")  # type: ignore[call-overload]
    written: list[Entry] = []
    real = box.journal.append
    box.journal.append = lambda entries: (written.extend(entries), real(entries))[1]  # type: ignore[method-assign, func-returns-value]
    for type, raised in (("new", True), ("update", False), ("end", False), ("update", True), ("end", False)):
        box.announcer.alert(Change(type, 0, 0, "a", 1, 2, 1.5, 1.5, raised))  # type: ignore[arg-type]
    box.sink.until(5)
    assert [(e.seq, e.over, e.passing) for e in written] == [
        (0, False, False),
        (1, False, True),
        (2, True, False),
        (3, False, False),  # it goes on, and stands again
        (4, True, False),
    ]


def test_the_record_says_below_which_number_updates_may_be_missing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "k.db", Bounds(rows=4))
    box = Box(journal, start=False)
    journal.append([Entry(n, "a", False, b"x", n == 1) for n in range(5)])
    page = box.outbox.read(0, 10, 10**6)
    assert (len(page.messages), page.first, page.thinned) == (4, 0, 2)
    box.outbox.close()
    journal.close()


def test_goodbye_waits_for_the_disk(box: Box) -> None:
    slow(box.journal, threading.Event(), 0.2)
    box.alert(id="a")
    box.status(state="offline", reason="stopped")
    assert box.sink.on_disk == [[0], [0]]


def test_a_replay_gives_what_was_published_page_by_page_and_nothing_before(box: Box) -> None:
    for n in range(5):
        box.alert(id=f"a{n}")
    box.sink.until(5)
    entered = slow(box.journal, go := threading.Event(), 20)
    box.alert(id="b")
    assert entered.wait(20)
    pages = [box.outbox.read(since, 100, 1) for since in range(6)]
    go.set()
    assert [len(p.messages) for p in pages] == [1, 1, 1, 1, 1, 0] and [p.upto for p in pages] == [1, 2, 3, 4, 5, 5]


def test_what_is_too_old_goes_also_when_nothing_happens(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.journal.outbox.TIDY_S", 0.01)
    tidied, box = threading.Event(), Box(journal, start=False)
    monkeypatch.setattr(journal, "tidy", tidied.set)
    box.outbox.start()
    assert tidied.wait(20)
    box.outbox.close()


def test_two_threads_are_never_in_the_sink_together() -> None:
    entered, go, inside = threading.Event(), threading.Event(), list[str]()

    class Slow(MemorySink):
        def send(self, message: bytes) -> None:
            entered.set()
            go.wait(20)
            inside.append("send")

        def newcomers(self) -> bool:
            inside.append("newcomers")
            return False

    shared = SharedSink(Slow())
    first = threading.Thread(target=shared.send, args=(b"",))
    first.start()
    assert entered.wait(20)
    second = threading.Thread(target=shared.newcomers)
    second.start()
    second.join(0.05)
    go.set()
    first.join()
    second.join()
    assert inside == ["send", "newcomers"]


def test_alerts_that_an_earlier_run_left_standing_are_ended(tmp_path: Path) -> None:
    first = Box(Journal(tmp_path / "j.db"))
    first.alert(id="a")
    first.alert(id="b")
    first.alert(id="b", type="end")
    first.alert(id="c", type="new")
    first.alert(id="c", type="update", score=3.0)
    first.sink.until(5)
    first.outbox.close()
    second = Box(Journal(tmp_path / "j.db"))
    ended = second.sink.until(2)
    assert [(a.id, a.type, a.seq) for a in ended] == [("a", "end", 5), ("c", "end", 6)]
    assert ended[1].score == 3.0 and "stopped" in ended[0].reason
    assert {a.run for a in ended} == {second.announcer.run}
    second.outbox.close()
    third = Box(Journal(tmp_path / "j.db"))
    assert third.outbox.next == 7 and third.journal.standing() == []
    third.outbox.close()


def test_without_an_outbox_alerts_are_published_at_once_and_trouble_is_said() -> None:
    sink = MemorySink()
    announcer = Announcer(sink, Windows(WindowSpec.of(48, 2.0, 0.25, 0.5, 2.0), 4, 4))
    announcer._say(ALERT)
    announcer._say(ALERT)
    assert [(a.seq, a.journal, a.row) for a in sink.alerts()] == [(0, "", "r"), (1, "", "r")]
    assert announcer.alert_seq == 2 and announcer.unwritten == 0  # nobody asked for a journal
    announcer.trouble = "journal /x: cannot open"
    announcer.status(STATUS)
    announcer.status(replace(STATUS, state="draining", reason="stopping"))
    last = [e for e in sink.events if isinstance(e, Status)]
    assert [(s.state, s.reason) for s in last] == [("degraded", announcer.trouble), ("draining", "stopping")]
    assert announcer.unwritten == 2
