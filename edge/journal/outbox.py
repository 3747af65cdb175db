"""Writes alerts to disk and then publishes them, in a thread of its own, so that the loop waits for neither.

loop ── put ──► waiting ──► thread: journal.append (what has gathered, one fsync) ──► sink.send ──► subscribers
                   └─ if the disk fails, or does not answer for a second: published anyway, state degraded

What was published unwritten stays in memory, is replayed from there, and is written once the disk works again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge.journal.store import Entry, Journal, JournalError
from edge.network.sink import Sink
from edge.notices import Notices

PATIENCE_S = 1.0
RETRY_S = 1.0
TIDY_S = 3600.0
UNSAVED_MOST = 10_000
GATHER = 256


class SharedSink:
    """A sink shared by two threads behind a lock: ZeroMQ sockets allow that, one thread at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._lock = sink, threading.Lock()

    def send(self, message: bytes) -> None:
        """See `Sink`."""
        with self._lock:
            self._sink.send(message)

    def newcomers(self) -> bool:
        """See `Sink`."""
        with self._lock:
            return self._sink.newcomers()

    def wanted(self, topic: bytes) -> bool:
        """See `Sink`."""
        with self._lock:
            return self._sink.wanted(topic)

    def close(self) -> None:
        """See `Sink`."""
        with self._lock:
            self._sink.close()


@dataclass(frozen=True, slots=True)
class Page:
    """Messages in order: all that are kept below `upto`. `first` and `next` are those of the whole journal.

    `began` is the number with which this run of the engine began. Below `thinned`, messages that said only that an
    alert is still standing may have been deleted.
    """

    messages: list[bytes]
    upto: int
    first: int
    next: int
    began: int
    thinned: int = 0


class Outbox:
    """Owns the journal's writing thread. The loop calls `put`, `overdue` and `flush`; the replay calls `read`."""

    def __init__(
        self, journal: Journal, sink: Sink, notices: Notices, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.journal, self._sink, self._notices, self._clock = journal, sink, notices, clock
        self.next = self.published = self._began = journal.next
        """The number of the next alert raised, and of the next one published."""
        self.trouble = ""
        self.unwritten = self.failures = 0
        """Alerts that were never written, and how often writing failed."""
        self._waiting: deque[tuple[float, Entry]] = deque()
        self._wake = threading.Condition()
        self._closing = self._stuck = self._damaged = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    # ---- the loop's side ---------------------------------------------------------------------------------------

    def put(self, id: str, over: bool, message: bytes, passing: bool = False) -> None:
        """Hand over the message numbered `next`; it is published once it is on disk."""
        with self._wake:
            self._waiting.append((self._clock(), Entry(self.next, id, over, message, passing)))
            self.next += 1
            if self._stuck:
                self._publish(self.next)
                # The thread may wait for the disk for hours, so the cap is enforced here. It spares the first GATHER
                # entries, which the thread may be writing.
                while len(self._waiting) > UNSAVED_MOST + GATHER:
                    del self._waiting[GATHER]
                    self.unwritten += 1
            self._wake.notify()

    def overdue(self) -> None:
        """Publish what has waited too long for the disk: an alarm matters more than its record."""
        with self._wake:
            late = [e for since, e in self._waiting if self._clock() - since >= PATIENCE_S and e.seq >= self.published]
            if late:
                self._stuck = True
                self._say(f"journal {self.journal.path}: the disk has not answered for {PATIENCE_S:g} s")
                self._publish(self.next)

    def flush(self, seconds: float) -> None:
        """Wait for the disk, at most `seconds`; then publish everything."""
        with self._wake:
            self._wake.wait_for(lambda: not self._waiting or self._stuck or bool(self.trouble), seconds)
            self._publish(self.next)

    def close(self) -> None:
        """Write what is left, if the disk allows it within two seconds, and stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident:
            self._thread.join(2 * PATIENCE_S)
        if self._waiting:
            self._notices.say(f"{len(self._waiting)} alerts could not be written to {self.journal.path}")
        if not self._thread.is_alive():
            self.journal.close()

    # ---- the replay's side -------------------------------------------------------------------------------------

    def read(self, since: int, count: int, size: int) -> Page:
        """Messages from `since` on, including those only in memory. Raises JournalError."""
        with self._wake:
            pending = [(e.seq, e.message) for _, e in self._waiting if e.seq < self.published]
            following = self.published
        try:
            rows, first, high, thinned = self.journal.read(since, count, size)
        except JournalError as e:
            if e.damaged:
                with self._wake:
                    self._damaged = True
                    self._wake.notify()
            raise
        cut = bool(rows) and rows[-1][0] + 1 < high
        held = dict(rows) if cut else dict(pending) | dict(rows)
        seqs = sorted(s for s in held if s >= since)[:count]
        following = max(following, high)
        upto = seqs[-1] + 1 if cut or len(seqs) == count else following
        return Page([held[s] for s in seqs], upto, first, following, self._began, thinned)

    # ---- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(JournalError):
            self._attempt(self.journal.check)
        while True:
            with self._wake:
                if not self._waiting and not self._closing and not self._damaged:
                    self._wake.wait(RETRY_S if self.trouble else TIDY_S)
                batch = [e for _, e in list(self._waiting)[:GATHER]]
                closing, damaged = self._closing, self._damaged
            if damaged:
                self._recover("the journal was found damaged while reading")
            if batch or not closing:
                self._write(batch)
            with self._wake:
                if closing and (not self._waiting or self.trouble):
                    return

    def _write(self, batch: list[Entry]) -> None:
        """Commit a batch and publish it. An empty batch deletes what is too old, and so tests the disk."""
        try:
            self._attempt((lambda: self.journal.append(batch)) if batch else self.journal.tidy)
        except JournalError:
            with self._wake:
                self._publish(self.next)
                while len(self._waiting) > UNSAVED_MOST:
                    self._waiting.popleft()
                    self.unwritten += 1
                self._wake.notify_all()
                if batch and not self._closing:
                    self._wake.wait(RETRY_S)
            return
        with self._wake:
            if self.trouble:
                self._notices.say(f"journal {self.journal.path}: works again")
            self.trouble, self._stuck = "", False
            if batch:
                self._publish(batch[-1].seq + 1)
                while self._waiting and self._waiting[0][1].seq <= batch[-1].seq:
                    self._waiting.popleft()
            self._wake.notify_all()

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do `work`; if the file is damaged, set it aside and do it again. Logs, counts and raises JournalError."""
        try:
            try:
                work()
            except JournalError as e:
                if not e.damaged:
                    raise
                self._recover(str(e))
                work()
        except JournalError as e:
            self.failures += 1
            with self._wake:
                self._say(str(e))
            raise

    def _recover(self, why: str) -> None:
        with self._wake:
            self._damaged = False
        try:
            aside = self.journal.start_new_file()
        except (JournalError, OSError) as e:
            with self._wake:
                self._say(f"journal {self.journal.path}: damaged, and no new file can be started: {e}")
            return
        self._notices.say(f"{why}; set aside as {aside}, new file started; alerts in the old one are not replayed")

    def _say(self, trouble: str) -> None:
        self.trouble = trouble
        self._notices.say(
            f"degraded: {trouble}; alerts are published unwritten, and written once the disk works", "journal"
        )

    def _publish(self, upto: int) -> None:
        """Send what is below `upto` and not yet sent. Call it under the lock, so that numbers go out in order."""
        fresh: deque[Entry] = deque()
        for _, entry in reversed(self._waiting):
            if entry.seq < self.published:
                break
            if entry.seq < upto:
                fresh.appendleft(entry)
        for entry in fresh:
            self._sink.send(entry.message)
            self.published = entry.seq + 1
