"""Hears what the engine says, and asks for what it missed: after a gap, a restart, or a late start.

engine ── alert, score, status ──► SUB ──► Follower ──► alerts in order, each once
       ◄── from number N on ────── DEALER ◄──┘  └──► Cursor, on disk
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import zmq

from edge.client.cursor import Cursor
from edge.client.follow import Follower, Gap
from edge.errors import SettingsError, WireError
from edge.events import Alert, Event, Provenance, Scores, Status, check_topics, decode_event
from edge.journal.replay import Request, decode_answer, encode_request
from edge.network.endpoint import Endpoint, milliseconds, no_answer, turned_away
from edge.network.keys import open_keys
from edge.wire import COUNT_LIMIT

ALERTS = "sub+connect:tcp://127.0.0.1:5556"
REPLAY = "dealer+connect:tcp://127.0.0.1:5557"
ASK_S = 2.0
"""After so long without an answer the question is asked again, on a new connection."""
ROWS_MOST = 64
NOBODY = Status(0, "", "offline", "", 0.0, 0, 0, 0, 0, 0, 0, Provenance("", "", ""))


@dataclass(slots=True)
class _Line:
    """One row of numbers, and the connection on which its record is asked."""

    follower: Follower
    run: str
    replay: str = ""
    socket: zmq.Socket[bytes] | None = None
    ask: int = -1
    since: int = 0
    asked: float = -math.inf
    trying: float | None = None


class AlertSubscriber:
    """Iterates over Alert, Scores and Status events. Alerts come in order of `seq`, each once, also those missed.

    topics: how those begin that are wanted: "alert", "score", "status"; "alert/cam" for all streams whose names begin
    so, and with a NUL at the end one alone: "alert/cam1\\0". Ends after `timeout` seconds of silence, if given.
    Alerts are heard from now on; from number `since` on, if given; or from where the last one with this `cursor` file
    was. The cursor moves on when the loop's body is done with an event, or with `commit()`. `replay` is where
    to ask for what was missed, none: where the engine says. What nobody can give any more is counted in `missed` and
    named in `gaps`; so are alerts that the replay, while the engine lives, has not given for `patience` seconds.

    `state` is the engine's; without a heartbeat for `offline_after` seconds it is "offline", and a Status that says so
    is made here. `keys` is a folder of CURVE keys, see `edge.network.keys`.
    """

    def __init__(
        self,
        endpoint: str = ALERTS,
        *,
        topics: Sequence[str] = ("alert", "status"),
        timeout: float | None = None,
        since: int | None = None,
        cursor: Path | str | None = None,
        replay: str | None = None,
        patience: float = 10.0,
        offline_after: float = 5.0,
        hwm: int = 100_000,
        keys: Path | str | None = None,
        allow_remote: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_topics(topics)
        if since is not None and (type(since) is not int or not 0 <= since < COUNT_LIMIT):
            raise SettingsError(
                f"since is {since!r:.40}", why="alerts are numbered from 0 on", fix="since=0 begins there"
            )
        self._where = Endpoint.parse(endpoint, ("sub",), example=ALERTS)
        self._keys, self._allow_remote = open_keys(keys), allow_remote
        self._where.check_reach(allow_remote, self._keys)
        self._asked_for, self._since, self._replay = tuple(topics), since, replay
        self._patience, self._offline_after, self._clock = patience, offline_after, clock
        self.timeout, self.missed = timeout, 0
        self.gaps: deque[Gap] = deque(maxlen=100)
        self.status = NOBODY
        """The newest that the engine sent, or the one made here when it fell silent."""
        self._statuses, self._told_offline, self._heard = 0, False, clock()
        self._refused = threading.Event()
        self._lines: dict[str, _Line] = {}
        self._scores: dict[tuple[str, str], int] = {}
        self._ready: deque[Event] = deque()
        self._numbers = itertools.count()
        alerts = [t for t in topics if "alert/".startswith(t) or t.startswith("alert/")]
        self._want_status = any("status".startswith(t) for t in topics)
        # All streams' alerts share one row of numbers: it takes all of them to see a gap. The rest is left out here.
        self._follow = bool(alerts)
        with contextlib.ExitStack() as stack:
            if replay is not None:
                Endpoint.parse(replay, ("dealer",), example=REPLAY).check_reach(allow_remote, self._keys)
            self._cursor = None if cursor is None else Cursor(cursor)
            if self._cursor:
                stack.callback(self._cursor.close)
            self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            stack.callback(self._context.term)
            if self._keys and self._where.mode == "bind":
                stack.enter_context(self._keys.guard(self._context))
            self._socket = self._where.open(self._context, hwm=hwm, keys=self._keys, refused=self._refused.set)
            stack.callback(self._socket.close, 0)
            for topic in {*(set(topics) - set(alerts)), *(["alert/"] if alerts else []), "status"}:
                self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
            self._stack = stack.pop_all()

    @property
    def state(self) -> str:
        """online, degraded, draining or offline."""
        return self.status.state

    def receive(self, timeout: float | None = None) -> Event | None:
        """The next event, or None after `timeout` seconds (none: as long as it takes). Raises WireError."""
        until = math.inf if timeout is None else self._clock() + max(0.0, timeout)
        while not self._ready:
            left = until - self._clock()
            if not self._pump(min(left, self._next_due())) and self._clock() >= until and not self._ready:
                return None
        return self._ready.popleft()

    def wait(self, seconds: float = 10) -> Status:
        """The engine's status; from then on nothing is missed. Raises HaadError when none comes."""
        until, before = self._clock() + seconds, self._statuses
        for event in self._ready:
            if isinstance(event, Status) and event.run:
                self._ready.remove(event)
                return event
        while (left := until - self._clock()) > 0:
            with contextlib.suppress(WireError):
                self._pump(min(left, self._next_due()))
            if self._statuses > before:
                status = self.status
                with contextlib.suppress(ValueError):
                    self._ready.remove(status)
                return status
        raise no_answer(self._where, self._refused, "no engine answers", f"no status within {seconds:g} s")

    def commit(self) -> None:
        """What `receive` has returned so far is dealt with: the cursor moves past it, on disk when this returns."""
        if self._cursor is None:
            return
        for row, line in self._lines.items():
            first = next((e.seq for e in self._ready if isinstance(e, Alert) and e.row == row), line.follower.next)
            if line.follower.on_record and first is not None:
                self._cursor.advance(row, first)

    def __iter__(self) -> Iterator[Event]:
        while (event := self.receive(self.timeout)) is not None:
            yield event
            self.commit()

    # ---- what arrives ------------------------------------------------------------------------------------------

    def _pump(self, seconds: float) -> bool:
        """Wait so long at most, take one message of each kind, do what is due; whether something came."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        asked = {line.socket: line for line in self._lines.values() if line.socket}
        for socket in asked:
            poller.register(socket, zmq.POLLIN)
        found = dict(poller.poll(milliseconds(seconds)))
        for socket, line in asked.items():
            if socket in found:
                self._answered(line, socket)
        try:
            if self._socket in found:
                self._take(decode_event(self._socket.recv_multipart()))
        finally:
            self._tick(self._clock())
        return bool(found)

    def _take(self, event: Event) -> None:
        self._heard, self._told_offline = self._clock(), False
        self._refused.clear()
        if isinstance(event, Scores):
            expected = self._scores.get((event.run, event.stream))
            if expected is not None and event.seq > expected:
                gap = Gap(event.run, expected, event.seq, "they are not kept", f"score messages of {event.stream}")
                self._give([], [gap])
            self._scores[event.run, event.stream] = event.seq + 1
            self._ready.append(event)
            return
        if isinstance(event, Status):
            self.status = event
            self._statuses += 1
        if self._follow:
            line = self._line(event)
            if isinstance(event, Status):
                if line.replay != event.replay:
                    line.replay, line.asked = event.replay, -math.inf
                if not (event.replay or self._replay):
                    line.follower.on_record = False
                self._give(*line.follower.told(event.alert_seq))
                self._remember(line.follower)
            else:
                self._give(*line.follower.heard(event))
        if isinstance(event, Status) and self._want_status:
            self._ready.append(event)

    def _line(self, event: Alert | Status) -> _Line:
        line = self._lines.get(event.row)
        if line is None:
            follower = Follower(event.row, self._begin(event), on_record=bool(event.journal))
            line = self._lines[event.row] = _Line(follower, event.run)
            while len(self._lines) > ROWS_MOST:
                old = self._lines.pop(next(iter(self._lines)))
                if old.socket:
                    old.socket.close(0)
        elif line.run != event.run:  # the engine came back: what it wrote in between is on record
            line.run, line.follower.unsure, line.trying = event.run, line.follower.on_record, None
        return line

    def _begin(self, event: Alert | Status) -> int | None:
        """The first number wanted of a row that was not heard before."""
        known = self._cursor.next if self._cursor and event.journal else {}
        if event.row in known:
            return known[event.row]
        if self._where.mode == "connect" and (known or self._lines):
            return 0  # one engine at a time: this row took the place of the one followed so far
        return self._since

    def _remember(self, follower: Follower) -> None:
        """A row that the cursor does not know yet enters it, so that a crash before the first alert loses none."""
        if self._cursor and follower.on_record and follower.next is not None and follower.row not in self._cursor.next:
            first = next((e.seq for e in self._ready if isinstance(e, Alert) and e.row == follower.row), follower.next)
            self._cursor.advance(follower.row, first)

    def _give(self, alerts: list[Alert], gaps: list[Gap]) -> None:
        for gap in gaps:
            self.missed += gap.after - gap.first
            self.gaps.append(gap)
        for alert in alerts:
            if any(f"alert/{alert.stream}\0".startswith(t) for t in self._asked_for):
                self._ready.append(alert)

    # ---- what is due -------------------------------------------------------------------------------------------

    def _next_due(self) -> float:
        """Seconds until `_tick` may have something to do."""
        now = self._clock()
        due = math.inf if self._told_offline else self._heard + self._offline_after
        for line in self._lines.values():
            if line.trying is not None:
                due = min(due, line.asked + ASK_S)
        return max(0.0, due - now)

    def _tick(self, now: float) -> None:
        silent = now - self._heard >= self._offline_after
        if silent and not self._told_offline:
            self._told_offline = True
            if self.status.state != "offline" or self.status is NOBODY:
                silence = f"for {self._offline_after:g} s"
                reason = f"nothing heard {silence} at {self._where.address}: no engine there"
                if self._refused.is_set():
                    reason = str(turned_away(self._where))
                elif self.status.run:
                    reason = f"no heartbeat {silence}"
                self.status = replace(self.status, state="offline", reason=reason)
                if self._want_status:
                    self._ready.append(self.status)
        for line in self._lines.values():
            self._ask(line, now, alive=not silent)

    def _ask(self, line: _Line, now: float, alive: bool) -> None:
        since = line.follower.wants()
        if since is None:
            line.trying = None
            return
        if line.trying is None:
            line.trying, line.asked = now, -math.inf
        if not alive:  # nobody could answer
            line.trying = now
        if now - line.trying >= self._patience:
            self._give(*line.follower.give_up(f"the replay gave no answer for {self._patience:g} s"))
            line.trying = None
            return
        if now - line.asked < ASK_S:
            return
        if line.socket and line.ask >= 0:  # no answer: the connection may be to an engine that is gone
            line.socket.close(0)
            line.socket = None
        line.socket = line.socket or self._connect(line)
        line.asked, line.ask, line.since = now, next(self._numbers), since
        if line.socket:
            journal = line.follower.row
            line.socket.send(encode_request(Request(line.ask, journal, since)))

    def _connect(self, line: _Line) -> zmq.Socket[bytes] | None:
        """A connection to the record; None while nobody has said where it is, or it must not be reached."""
        text = self._replay or (f"dealer+connect:{self._reachable(line.replay)}" if line.replay else "")
        if not text:
            return None
        try:
            where = Endpoint.parse(text, ("dealer",))
            where.check_reach(self._allow_remote, self._keys)
            return where.open(self._context, hwm=1000, keys=self._keys)
        except SettingsError as e:
            line.follower.on_record = False
            self._give(*line.follower.give_up(str(e)))
            return None

    def _reachable(self, address: str) -> str:
        """An address of all interfaces is the engine's host as this subscriber names it."""
        for every in ("tcp://0.0.0.0:", "tcp://[::]:"):
            if address.startswith(every) and self._where.address.startswith("tcp://"):
                return f"{self._where.address.rpartition(':')[0]}:{address.rpartition(':')[2]}"
        return address

    def _answered(self, line: _Line, socket: zmq.Socket[bytes]) -> None:
        try:
            answer = decode_answer(socket.recv_multipart())
        except WireError:
            return  # asked again when it is due
        if answer.ask != line.ask or answer.error:
            return
        line.ask = -1
        a = answer
        self._give(*line.follower.filled(line.since, a.alerts, a.upto, a.first, a.next, a.began, a.thinned))
        line.trying = None  # what is still missing is asked for at once
        self._remember(line.follower)

    def close(self) -> None:
        """Close at once. The cursor stays where it is."""
        for line in self._lines.values():
            if line.socket:
                line.socket.close(0)
        self._stack.close()

    def __enter__(self) -> AlertSubscriber:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
