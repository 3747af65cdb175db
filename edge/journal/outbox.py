"""Alerts on their way out: to disk first, then to subscribers, and the loop waits for neither.

loop ── put ──► waiting ──► thread: journal.append (what has gathered, one fsync) ──► sink.send ──► subscribers
                   └─ a disk that fails, or does not answer for a second: published all the same, state degraded

What was published without the disk stays in memory, is replayed from there, and is written once the disk works again.
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
    """A sink that two threads use in turn; ZeroMQ's sockets allow that, one at a time."""

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
    """Messages in order: all that is held below `upto`. `first` and `next` are of the whole journal.

    `began` is the number with which this life of the engine began. Below `thinned` messages that said only that an
    alert still stands may have been let go of.
    """

    messages: list[bytes]
    upto: int
    first: int
    next: int
    began: int
    thinned: int = 0


class Outbox:
    """Owns the journal's writing thread. `put`, `overdue` and `flush` are the loop's; `read` is the replay's."""

    def __init__(
        self, journal: Journal, sink: Sink, notices: Notices, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.journal, self._sink, self._notices, self._clock = journal, sink, notices, clock
        self.next = self.published = self._began = journal.next
        """The number of the next alert raised, and of the next one published."""
        self.trouble = ""
        self.unwritten = self.failures = 0
        """Alerts given up for the disk, and times that it failed."""
        self._waiting: deque[tuple[float, Entry]] = deque()
        self._wake = threading.Condition()
        self._closing = self._stuck = self._damaged = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    # ---- the loop's side ---------------------------------------------------------------------------------------

    def put(self, id: str, over: bool, message: bytes, passing: bool = False) -> None:
        """Hand over the message numbered `next`; it is published once it is on disk."""
        with self._wake:
            self._waiting.append((self._clock(), Entry(self.next, id, over, message, passing)))
            self.next += 1
            if self._stuck:
                self._publish(self.next)
                # The thread waits for the disk, maybe for hours, so the cap is kept here; not of what it has in hand.
                while len(self._waiting) > UNSAVED_MOST + GATHER:
                    del self._waiting[GATHER]
                    self.unwritten += 1
            self._wake.notify()

    def overdue(self) -> None:
        """Publish what the disk has kept waiting for too long: an alarm is worth more than its record."""
        with self._wake:
            late = [e for since, e in self._waiting if self._clock() - since >= PATIENCE_S and e.seq >= self.published]
            if late:
                self._stuck = True
                self._say(f"journal {self.journal.path}: the disk has not answered for {PATIENCE_S:g} s")
                self._publish(self.next)

    def flush(self, seconds: float) -> None:
        """Wait for the disk, so long at most; then everything is published."""
        with self._wake:
            self._wake.wait_for(lambda: not self._waiting or self._stuck or bool(self.trouble), seconds)
            self._publish(self.next)

    def close(self) -> None:
        """Write what is left, if the disk lets us within two seconds, and stop."""
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
        """Messages from `since` on, those included that only memory holds. Raises JournalError."""
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
                self._recover("damage was met while reading")
            if batch or not closing:
                self._write(batch)
            with self._wake:
                if closing and (not self._waiting or self.trouble):
                    return

    def _write(self, batch: list[Entry]) -> None:
        """Commit a batch and publish it; an empty one trims what is old, and tries the disk."""
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
                self._notices.say(f"journal {self.journal.path}: written again")
            self.trouble, self._stuck = "", False
            if batch:
                self._publish(batch[-1].seq + 1)
                while self._waiting and self._waiting[0][1].seq <= batch[-1].seq:
                    self._waiting.popleft()
            self._wake.notify_all()

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do it; in a damaged file set that aside, and do it again. Raises JournalError, said and counted."""
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
            aside = self.journal.begin_anew()
        except (JournalError, OSError) as e:
            with self._wake:
                self._say(f"journal {self.journal.path}: damaged, and cannot be begun anew: {e}")
            return
        self._notices.say(f"{why}; set aside as {aside}, and a new file begun; what was in it is not replayed")

    def _say(self, trouble: str) -> None:
        self.trouble = trouble
        self._notices.say(f"degraded: {trouble}; alerts go out unwritten, and are written when it works", "journal")

    def _publish(self, upto: int) -> None:
        """Send what is below `upto` and has not been sent. Under the lock, so that numbers go out in order."""
        fresh: deque[Entry] = deque()
        for _, entry in reversed(self._waiting):
            if entry.seq < self.published:
                break
            if entry.seq < upto:
                fresh.appendleft(entry)
        for entry in fresh:
            self._sink.send(entry.message)
            self.published = entry.seq + 1
