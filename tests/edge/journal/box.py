"""An announcer with an outbox, in the hands of a test, and disks that fail or hang."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace

from edge.alerts.announce import Announcer
from edge.events import Alert, Provenance, Status
from edge.grid import WindowSpec
from edge.journal.outbox import Outbox, SharedSink
from edge.journal.store import Entry, Journal, JournalError
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


def fail(journal: Journal, why: str = "database or disk is full") -> Callable[[], None]:
    """Appends fail from here on, until the returned function is called."""
    real = journal.append

    def append(entries: object) -> None:
        raise JournalError("journal: cannot write", why=why)

    journal.append = append  # type: ignore[method-assign, assignment]

    def mend() -> None:
        journal.append = real  # type: ignore[method-assign]

    return mend


def slow(journal: Journal, go: threading.Event, seconds: float) -> threading.Event:
    """Appends wait for `go`, so long at most; the event returned says that one does."""
    real, entered = journal.append, threading.Event()

    def append(entries: list[Entry]) -> None:
        entered.set()
        go.wait(seconds)
        real(entries)

    journal.append = append  # type: ignore[method-assign, assignment]
    return entered
