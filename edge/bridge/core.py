"""Alerts carried on to other systems, by processes of their own that are ordinary subscribers.

engine ── alerts, replay ──► AlertSubscriber ──► Target.deliver ──► broker, web server, file
                                  ▲                   │ it has them: only then
                                cursor ◄──────────────┘

A bridge that was down goes on where it was. An alert may be delivered twice (a crash between delivery and cursor), and
is never skipped: `journal` and `seq` in it tell copies apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from edge.client import AlertSubscriber
from edge.errors import HaadError, WireError
from edge.events import Alert, Status
from edge.notices import Notices
from edge.outputs import naming

FIRST_S, MOST_S = 0.5, 60.0
REFUSALS = 5
"""So often an alert is offered to a receiver that says it will not have it, before it is put aside."""


class Unavailable(HaadError):
    """The receiver cannot be reached, or says that it is its own fault: try again."""


class Refused(HaadError):
    """The receiver will not have this alert, whenever it is offered."""


class Target(Protocol):
    """Where a bridge leads. `most` alerts are handed over at a time; the cursor moves after each time."""

    most: int

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """Hand over alerts in order; how many, from the first on, the receiver has for certain.

        Raises Unavailable when it has none; Refused when it will not have the first one.
        """

    def tell(self, status: Status) -> None:
        """The engine's state, for targets that show it. Never raises."""

    def stop(self) -> None:
        """Come back from `deliver` within seconds, now and from here on. Called from a signal handler."""

    def close(self) -> None: ...


def as_json(alert: Alert) -> str:
    """One line of JSON, the fields of the alert message."""
    return json.dumps(asdict(alert), ensure_ascii=False, separators=(",", ":"))


class Bridge:
    """Moves alerts from a subscriber to a target, for as long as the process lives."""

    def __init__(
        self,
        subscriber: AlertSubscriber,
        target: Target,
        notices: Notices,
        *,
        aside: Path,
        pause: Callable[[float], object] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`aside` is the file for alerts that the receiver refuses; `pause` waits so many seconds or until `stop`."""
        self._stopping = threading.Event()
        self._subscriber, self._target, self._notices, self._aside = subscriber, target, notices, aside
        self._pause, self._jitter = pause or self._stopping.wait, jitter
        self._state, self._recorded = "", True
        self.delivered = self.refused = 0

    def stop(self) -> None:
        """Leave `run` after what is being delivered, or within seconds; may be called from a signal handler."""
        self._target.stop()
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            self.step(0.2)

    def step(self, timeout: float) -> int:
        """Wait so long for an alert, deliver what there is, move the cursor on. Returns how many were delivered."""
        batch: list[Alert] = []
        while len(batch) < self._target.most:
            try:
                event = self._subscriber.receive(0 if batch else timeout)
            except WireError as e:
                self._notices.say(f"message dropped: {e}", e.reason)
                continue
            if isinstance(event, Alert):
                batch.append(event)
            elif isinstance(event, Status):
                self._show(event)
            else:
                break
        self._say_gaps()
        if not batch:
            self._subscriber.commit()
            return 0
        return self._deliver(batch)

    def _deliver(self, batch: list[Alert]) -> int:
        done, tries, refusals = 0, 0, 0
        while done < len(batch) and not self._stopping.is_set():
            try:
                taken = self._target.deliver(batch[done:])
            except Refused as e:
                refusals += 1
                if refusals >= REFUSALS:
                    self._put_aside(batch[done], e)
                    done, tries, refusals = done + 1, 0, 0
                    continue
                self._wait(tries, e)
                tries += 1
            except Unavailable as e:
                self._wait(tries, e)
                tries += 1
            else:
                if tries and taken:
                    self._notices.say("delivered again")
                done, tries, refusals = done + taken, 0, 0
                self.delivered += taken
        if done == len(batch):
            self._subscriber.commit()
        return done

    def _wait(self, tries: int, e: HaadError) -> None:
        """Twice as long each time, and not in step with other bridges."""
        if self._stopping.is_set():
            self._notices.say(f"not delivered: {e}")
            return
        seconds = min(MOST_S, FIRST_S * 2 ** min(tries, 10)) * (0.5 + self._jitter() / 2)
        self._notices.say(f"not delivered, next try in {seconds:.1f} s: {e}", "target")
        self._pause(seconds)

    def _put_aside(self, alert: Alert, e: Refused) -> None:
        append(self._aside, [as_json(alert)])
        self.refused += 1
        self._notices.say(f"alert {alert.id} seq {alert.seq} put aside in {self._aside}: {e}")

    def _show(self, status: Status) -> None:
        self._target.tell(status)
        if status.state != self._state:
            self._notices.say(f"engine {status.state}{': ' + status.reason if status.reason else ''}")
            self._state = status.state
        if status.run and not status.journal and self._recorded:
            self._notices.say("the engine has no journal: alerts from while this bridge is away are lost")
        self._recorded = not status.run or bool(status.journal)

    def _say_gaps(self) -> None:
        while self._subscriber.gaps:
            self._notices.say(str(self._subscriber.gaps.popleft()))


def append(path: Path, lines: Sequence[str]) -> None:
    """Write whole lines to the end of a file; on disk when this returns. Raises OSError, with nothing half written."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, fd)
        size = os.fstat(fd).st_size
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
