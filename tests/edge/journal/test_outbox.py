"""Alerts on their way out: on disk before anybody hears them, and heard also where there is no disk."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.alerts import Change
from edge.announce import Announcer
from edge.errors import SettingsError
from edge.events import Alert, Provenance, Status
from edge.grid import WindowSpec
from edge.journal.outbox import Outbox, SharedSink
from edge.journal.store import Entry, Journal, JournalError
from edge.journal.trim import Bounds
from edge.notices import Notices
from edge.windows import Windows

from ..harness import FakeClock, MemorySink

BY = Provenance("m", "e", "s")
STATUS = Status(0, "r", "online", "", 1.0, 0, 0, 0, 0, 0, 0, BY)
ALERT = Alert("i", "new", 0, "r", "cam1", 5, 1, 2, 1.5, 1.5, "walk", ("head",), "unlike walk", BY)


class Witness(MemorySink):
    """Notes what the journal held when a message was published."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal, self.on_disk = journal, []  # type: ignore[var-annotated]
        self.changed = threading.Condition()

    def send(self, message: bytes) -> None:
        with self.changed:
            super().send(message)
            self.on_disk.append([s for s, _ in self.journal.read(0, 10**6, 10**9)[0]])
            self.changed.notify_all()

    def until(self, count: int) -> list[Alert]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.alerts()) >= count, 20), self.events
            return self.alerts()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "j.db")
    yield journal
    journal.close()


class Box:
    """An announcer whose alerts go through an outbox; a clock that the test moves."""

    def __init__(self, journal: Journal, start: bool = True) -> None:
        self.journal, self.sink, self.clock, self.said = journal, Witness(journal), FakeClock(), io.StringIO()
        self.outbox = Outbox(journal, SharedSink(self.sink), Notices(self.said, clock=self.clock), clock=self.clock)
        self.announcer = Announcer(self.sink, Windows(WindowSpec.of(48, 2.0, 0.25, 0.5, 2.0), 4, 4))
        self.announcer.write_to(self.outbox)
        if start:
            self.outbox.start()

    def alert(self, **changes: object) -> None:
        self.announcer._say(replace(ALERT, **changes))  # type: ignore[arg-type]

    def status(self, **changes: object) -> Status:
        self.announcer.status(replace(STATUS, **changes))  # type: ignore[arg-type]
        event = next(e for e in reversed(self.sink.events) if isinstance(e, Status))
        return event


@pytest.fixture
def box(journal: Journal) -> Iterator[Box]:
    box = Box(journal)
    yield box
    box.outbox.close()


def fail(journal: Journal, why: str = "database or disk is full") -> Callable[[], None]:
    """Appends fail from here on, until the returned function is called."""
    real = journal.append

    def append(entries: object) -> None:
        raise JournalError("journal: cannot write", why=why)

    journal.append = append  # type: ignore[method-assign, assignment]

    def mend() -> None:
        journal.append = real  # type: ignore[method-assign]

    return mend


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


def slow(journal: Journal, go: threading.Event, seconds: float) -> threading.Event:
    """Appends wait for `go`, so long at most; the event returned says that one does."""
    real, entered = journal.append, threading.Event()

    def append(entries: list[Entry]) -> None:
        entered.set()
        go.wait(seconds)
        real(entries)

    journal.append = append  # type: ignore[method-assign, assignment]
    return entered


def test_goodbye_waits_for_the_disk(box: Box) -> None:
    slow(box.journal, threading.Event(), 0.2)
    box.alert(id="a")
    box.status(state="offline", reason="stopped")
    assert box.sink.on_disk == [[0], [0]]


def test_goodbye_waits_so_long_and_nothing_is_unheard_then(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.announce.DRAIN_S", 0.05)
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
    assert len(box.outbox._waiting) == 24 and box.outbox.unwritten == 76
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
    assert "taken away while it was in use" in box.said.getvalue() and path.exists()
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
    assert announcer.alert_seq == 2
    announcer.trouble = "journal /x: cannot open"
    announcer.status(STATUS)
    announcer.status(replace(STATUS, state="draining", reason="stopping"))
    last = [e for e in sink.events if isinstance(e, Status)]
    assert [(s.state, s.reason) for s in last] == [("degraded", announcer.trouble), ("draining", "stopping")]
