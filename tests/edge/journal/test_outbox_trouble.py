"""The disk fails, hangs, is damaged or taken away: alerts go out all the same, and are written when they can be."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import SettingsError
from edge.journal.store import Entry, Journal, JournalError

from .box import ALERT, Box, fail, slow


def test_goodbye_waits_so_long_and_nothing_is_unheard_then(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.announce.DRAIN_S", 0.05)
    slow(box.journal, go := threading.Event(), 20)
    box.alert(id="a")
    box.status(state="offline", reason="stopped")
    go.set()
    assert [type(e).__name__ for e in box.sink.events] == ["Alert", "Status"]


def test_a_journal_is_not_let_go_of_while_its_thread_may_still_write(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.journal.outbox.PATIENCE_S", 0.05)
    entered = slow(box.journal, go := threading.Event(), 20)
    box.alert(id="a")
    assert entered.wait(20)
    box.outbox.close()
    assert "1 alerts could not be written" in box.said.getvalue()
    with pytest.raises(SettingsError, match="in use"):
        Journal(box.journal.path)
    go.set()
    box.outbox.close()
    with contextlib.closing(Journal(box.journal.path)) as again:
        assert again.next == 1


def test_what_was_heard_already_is_not_late_however_long_the_disk_fails(box: Box) -> None:
    fail(box.journal)
    box.alert(id="a")
    box.sink.until(1)
    box.clock.now += 5
    assert "disk is full" in box.status().reason


def test_a_disk_that_fails_delays_nothing_and_is_made_up_for(box: Box) -> None:
    box.alert(id="a")
    box.sink.until(1)
    mend = fail(box.journal)
    box.alert(id="b")
    box.alert(id="c")
    assert [a.id for a in box.sink.until(3)] == ["a", "b", "c"]
    status = box.status()
    assert status.state == "degraded" and "disk is full" in status.reason and status.alert_seq == 3
    assert "degraded" in box.said.getvalue() and box.outbox.failures >= 1
    # What only memory holds is replayed from there.
    page = box.outbox.read(0, 10, 10**6)
    assert (len(page.messages), page.upto, page.first, page.next) == (3, 3, 0, 3)
    assert box.outbox.read(1, 1, 10**6).upto == 2
    mend()
    box.alert(id="d")
    box.sink.until(4)
    with box.outbox._wake:
        assert box.outbox._wake.wait_for(lambda: not box.outbox._waiting, 20)
    assert [s for s, _ in box.journal.read(0, 10, 10**6)[0]] == [0, 1, 2, 3]
    assert box.status().state == "online"


def test_a_disk_that_fails_is_tried_again_after_a_rest_and_fills_no_memory(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.journal.outbox.UNSAVED_MOST", 5)
    monkeypatch.setattr("edge.journal.outbox.RETRY_S", 20)
    fail(box.journal)
    box.alert(id="a0")
    box.sink.until(1)
    time.sleep(0.05)
    assert box.outbox.failures == 1
    for n in range(1, 50):
        box.alert(id=f"a{n}")
    box.sink.until(50)
    with box.outbox._wake:
        assert box.outbox._wake.wait_for(lambda: len(box.outbox._waiting) == 5, 20)
    assert box.outbox.unwritten == 45


def test_damage_that_is_met_while_reading_begins_a_new_file(box: Box) -> None:
    box.alert(id="a")
    box.sink.until(1)
    real, failed = box.journal.read, []

    def read(since: int, count: int, size: int) -> tuple[list[tuple[int, bytes]], int, int]:
        if not failed:
            failed.append(1)
            raise JournalError("journal: cannot read", why="database disk image is malformed", damaged=True)
        return real(since, count, size)

    box.journal.read = read  # type: ignore[method-assign]
    with pytest.raises(JournalError, match="cannot read"):
        box.outbox.read(0, 10, 10**6)
    box.alert(id="b")
    box.sink.until(2)
    page = box.outbox.read(0, 10, 10**6)
    assert "set aside" in box.said.getvalue() and (len(page.messages), page.first, page.next) == (1, 1, 2)


def test_a_disk_that_hangs_holds_alerts_back_for_a_second_only(box: Box) -> None:
    go, entered = threading.Event(), threading.Event()
    real = box.journal.append

    def hang(entries: list[Entry]) -> None:
        entered.set()
        go.wait(20)
        real(entries)

    box.journal.append = hang  # type: ignore[method-assign, assignment]
    box.alert(id="a")
    assert entered.wait(20)
    assert box.status().state == "online" and box.sink.alerts() == []
    box.clock.now += 1.5
    status = box.status()
    assert [a.id for a in box.sink.alerts()] == ["a"] and status.state == "degraded" and status.alert_seq == 1
    box.alert(id="b")
    assert [a.id for a in box.sink.alerts()] == ["a", "b"]  # no more waiting while it hangs
    go.set()
    with box.outbox._wake:
        assert box.outbox._wake.wait_for(lambda: not box.outbox._waiting, 20)
    assert [a.id for a in box.sink.alerts()] == ["a", "b"], "published once"
    assert box.status().state == "online"
    box.alert(id="c")
    box.sink.until(3)
    assert 2 in box.sink.on_disk[-1], "on disk first, as before"


def test_a_disk_that_hangs_for_hours_fills_no_memory(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is kept, what goes beyond it is counted, and what the thread has in hand is not taken from it."""
    monkeypatch.setattr("edge.journal.outbox.UNSAVED_MOST", 20)
    monkeypatch.setattr("edge.journal.outbox.GATHER", 4)
    go, entered, hung = threading.Event(), threading.Event(), list[int]()
    real = box.journal.append

    def hang(entries: list[Entry]) -> None:
        hung.extend(e.seq for e in entries)
        entered.set()
        assert go.wait(20)
        real(entries)

    box.journal.append = hang  # type: ignore[method-assign, assignment]
    box.alert(id="a0")
    assert entered.wait(20)
    box.clock.now += 1.5
    box.status()
    for n in range(1, 100):
        box.alert(id=f"a{n}")
    assert [a.seq for a in box.sink.alerts()] == list(range(100))  # all are heard
    assert len(box.outbox._waiting) == 24 and box.announcer.unwritten == 76
    go.set()
    with box.outbox._wake:
        assert box.outbox._wake.wait_for(lambda: not box.outbox._waiting, 20)
    kept = [s for s, _ in box.journal.read(0, 1000, 10**6)[0]]
    assert kept == [0, 1, 2, 3, *range(80, 100)] == sorted(hung) and len(box.sink.alerts()) == 100


def test_a_journal_that_is_taken_away_is_begun_anew_and_said(box: Box) -> None:
    """SQLite writes on into a file that has no name any more."""
    path = box.journal.path
    box.announcer._say(ALERT)
    box.sink.until(1)
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    box.announcer._say(replace(ALERT, id="k"))
    assert [a.seq for a in box.sink.until(2)] == [0, 1]
    assert "moved or deleted while it was in use" in box.said.getvalue() and path.exists()
    assert [s for s, _ in box.journal.read(0, 10, 10**6)[0]] == [1] and box.status().state == "online"


def test_damage_while_running_begins_a_new_file_under_the_same_numbers(box: Box) -> None:
    box.alert(id="a")
    box.sink.until(1)
    name = box.journal.id
    real, failed = box.journal.append, []

    def damaged(entries: list[Entry]) -> None:
        if not failed:
            failed.append(1)
            raise JournalError("journal: cannot write", why="database disk image is malformed", damaged=True)
        real(entries)

    box.journal.append = damaged  # type: ignore[method-assign, assignment]
    box.alert(id="b")
    box.sink.until(2)
    assert box.journal.read(0, 9, 10**6)[1:3] == (1, 2) and box.journal.id == name
    assert "set aside" in box.said.getvalue() and box.status().state == "online"


def test_damage_from_before_is_found_at_the_start(journal: Journal) -> None:
    box, found = Box(journal, start=False), []

    def check() -> None:
        if not found:
            found.append(1)
            raise JournalError("journal: damaged", damaged=True)

    journal.check = check  # type: ignore[method-assign]
    box.outbox.start()
    box.alert(id="a")
    box.sink.until(1)
    assert "set aside" in box.said.getvalue()
    box.outbox.close()
