"""Forwards alerts to other systems, in processes of their own that are ordinary subscribers.

engine ── alerts, replay ──► AlertSubscriber ──► Target.deliver ──► broker, web server, file
                                  ▲                   │ only once the target has them
                                cursor ◄──────────────┘

A bridge that was down goes on where it stopped. An alert is never skipped, but may be delivered twice (after a crash
between delivery and cursor): copies have the same `journal` and `seq`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from edge.client import AlertSubscriber
from edge.errors import HaadError, WireError
from edge.events import Alert, Status
from edge.notices import Notices
from edge.outputs import naming

FIRST_S, MOST_S = 0.5, 60.0
REFUSALS = 5
"""How often an alert is offered to a receiver that refuses it, before it is set aside."""


class Unavailable(HaadError):
    """The receiver cannot be reached, or reports a fault of its own: try again."""


class Refused(HaadError):
    """The receiver refuses this alert, and would refuse it again."""


class Target(Protocol):
    """A receiver. At most `most` alerts are delivered at a time; the cursor moves after each delivery."""

    most: int

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """Deliver alerts in order. Returns how many, from the first on, the receiver certainly has.

        Raises Unavailable if it has none of them; Refused if it refuses the first one.
        """

    def show_status(self, status: Status) -> None:
        """Pass on the engine's state, for targets that show it. Called again and again while it stays the same.

        Raises Unavailable or Refused if it did not arrive.
        """

    def stop(self) -> None:
        """Make `deliver` return within seconds, now and from here on. Called from a signal handler."""

    def close(self) -> None: ...


def shown(status: Status) -> dict[str, Any]:
    """What receivers are told of the engine's state."""
    return {name: getattr(status, name) for name in ("state", "reason", "run", "silent", "warnings")}


def as_json(alert: Alert) -> str:
    """The fields of an alert message as one line of JSON."""
    return json.dumps(asdict(alert), ensure_ascii=False, separators=(",", ":"))


class Bridge:
    """Delivers alerts from a subscriber to a target, until stopped."""

    def __init__(
        self,
        subscriber: AlertSubscriber,
        target: Target,
        notices: Notices,
        *,
        aside: Path,
        pause: Callable[[float], object] | None = None,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`aside`: the file for alerts that the receiver refuses; `pause` waits so many seconds, or until `stop`."""
        self._stopping = threading.Event()
        self._subscriber, self._target, self._notices, self._aside = subscriber, target, notices, aside
        self._pause, self._jitter, self._clock = pause or self._stopping.wait, jitter, clock
        self._status: Status | None = None
        self._show_tries, self._show_at = 0, float("-inf")
        self._state, self._recorded = "", True
        self.delivered = self.refused = 0

    def stop(self) -> None:
        """End `run` once the current delivery is done, or within seconds. May be called from a signal handler."""
        self._target.stop()
        self._stopping.set()

    def run(self) -> None:
        """Deliver until `stop`."""
        while not self._stopping.is_set():
            self.step(0.2)

    def step(self, timeout: float) -> int:
        """Wait up to `timeout` s for an alert, deliver what is there, move the cursor. Returns how many are done."""
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
            if self._status:  # it may not have arrived, and no heartbeat may follow
                self._pass_on(self._status)
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
        """Pause, twice as long each time, with jitter so that bridges do not retry in step."""
        if self._stopping.is_set():
            self._notices.say(f"not delivered: {e}")
            return
        seconds = _seconds(tries) * (0.5 + self._jitter() / 2)
        self._notices.say(f"not delivered, next try in {seconds:.1f} s: {e}", "target")
        self._pause(seconds)

    def _put_aside(self, alert: Alert, e: Refused) -> None:
        append(self._aside, [as_json(alert)])
        self.refused += 1
        self._notices.say(f"alert {alert.id} seq {alert.seq} set aside in {self._aside}: {e}")

    def _show(self, status: Status) -> None:
        self._status = status
        self._pass_on(status)
        if status.state != self._state:
            self._notices.say(f"engine {status.state}{': ' + status.reason if status.reason else ''}")
            self._state = status.state
        if status.run and not status.journal and self._recorded:
            self._notices.say("the engine has no journal: alerts sent while this bridge is away are lost")
        self._recorded = not status.run or bool(status.journal)

    def _pass_on(self, status: Status) -> None:
        if self._clock() < self._show_at:
            return
        try:
            self._target.show_status(status)
            self._show_tries = 0
        except (Refused, Unavailable) as e:
            self._show_at = self._clock() + _seconds(self._show_tries)
            self._show_tries += 1
            self._notices.say(f"the engine's state is not delivered yet: {e}", "status")

    def _say_gaps(self) -> None:
        while self._subscriber.gaps:
            self._notices.say(str(self._subscriber.gaps.popleft()))


def _seconds(tries: int) -> float:
    """How long to wait after so many failed tries and one more."""
    return min(MOST_S, FIRST_S * 2.0 ** min(tries, 10))


def append(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines to a file, on disk when this returns. Raises OSError, and then leaves nothing half written."""
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
