"""Receives what the engine publishes, and asks for what it missed: after a gap, a restart, or a late start.

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
"""How long to wait for an answer before asking again, on a new connection."""
ROWS_MOST = 64
NOBODY = Status(0, "", "offline", "", 0.0, 0, 0, 0, 0, 0, 0, Provenance("", "", ""))


@dataclass(slots=True)
class _Row:
    """One row of numbers, and the connection to the replay that has its record."""

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

    topics: prefixes of the wanted topics: "alert", "score", "status"; "alert/cam" for all streams whose names begin
    with cam; "alert/cam1\\0", with a NUL at the end, for cam1 alone. Iteration ends after `timeout` seconds of silence,
    if given. Alerts begin now; at number `since`, if given; or where the last subscriber with this `cursor` file was.
    The cursor moves when the loop's body is done with an event, or with `commit()`. `replay` is where to ask for what
    was missed; None: where the engine says. What can no longer be had is counted in `missed` and named in `gaps`; so
    are alerts that the replay has not given for `patience` seconds while the engine is alive.

    `state` is the engine's. Without a heartbeat for `offline_after` seconds it is "offline", and the subscriber makes a
    Status that says so. `keys` is a folder of CURVE keys, see `edge.network.keys`.
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
                f"since is {since!r:.40}", why="alerts are numbered from 0 on", fix="since=0 begins with the first"
            )
        self._where = Endpoint.parse(endpoint, ("sub",), example=ALERTS)
        self._keys, self._allow_remote = open_keys(keys), allow_remote
        self._where.check_reach(allow_remote, self._keys)
        self._asked_for, self._since, self._replay = tuple(topics), since, replay
        self._patience, self._offline_after, self._clock = patience, offline_after, clock
        self.timeout, self.missed = timeout, 0
        self.gaps: deque[Gap] = deque(maxlen=100)
        self.status = NOBODY
        """The engine's newest status, or the one made here when it fell silent."""
        self._statuses, self._told_offline, self._heard = 0, False, clock()
        self._refused = threading.Event()
        self._rows: dict[str, _Row] = {}
        self._scores: dict[tuple[str, str], int] = {}
        self._ready: deque[Event] = deque()
        self._numbers = itertools.count()
        alerts = [t for t in topics if "alert/".startswith(t) or t.startswith("alert/")]
        self._want_status = any("status".startswith(t) for t in topics)
        # The alerts of all streams share one row of numbers, so all are needed to see a gap. `_give` drops the others.
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
        """The engine's state: online, degraded, draining or offline."""
        return self.status.state

    def receive(self, timeout: float | None = None) -> Event | None:
        """The next event, or None after `timeout` seconds (None: wait for ever). Raises WireError."""
        until = math.inf if timeout is None else self._clock() + max(0.0, timeout)
        while not self._ready:
            left = until - self._clock()
            if not self._pump(min(left, self._next_due())) and self._clock() >= until and not self._ready:
                return None
        return self._ready.popleft()

    def wait(self, seconds: float = 10) -> Status:
        """Wait for the engine's status; from then on nothing is missed. Raises HaadError if none comes."""
        until, before = self._clock() + seconds, self._statuses
        for event in self._ready:
            if isinstance(event, Status) and event.run:
                return self._taken(event)
        while (left := until - self._clock()) > 0:
            with contextlib.suppress(WireError):
                self._pump(min(left, self._next_due()))
            if self._statuses > before:
                return self._taken(self.status)
        raise no_answer(self._where, self._refused, "no engine answers", f"no status within {seconds:g} s")

    def _taken(self, status: Status) -> Status:
        """Take what was waited for out of the queue, and that nobody was there before: it would be read afterwards."""
        self._ready = deque(e for e in self._ready if not isinstance(e, Status) or (e.run and e != status))
        return status

    def commit(self) -> None:
        """Move the cursor past everything that `receive` has returned so far; on disk when this returns."""
        if self._cursor is None:
            return
        for name, row in self._rows.items():
            first = next((e.seq for e in self._ready if isinstance(e, Alert) and e.row == name), row.follower.next)
            if row.follower.on_record and first is not None:
                self._cursor.advance(name, first)

    def __iter__(self) -> Iterator[Event]:
        while (event := self.receive(self.timeout)) is not None:
            yield event
            self.commit()

    # ---- what arrives ------------------------------------------------------------------------------------------

    def _pump(self, seconds: float) -> bool:
        """Wait up to `seconds`, take one message from each socket, do what is due. Returns whether anything came."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        asked = {row.socket: row for row in self._rows.values() if row.socket}
        for socket in asked:
            poller.register(socket, zmq.POLLIN)
        found = dict(poller.poll(milliseconds(seconds)))
        for socket, row in asked.items():
            if socket in found:
                self._answered(row, socket)
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
            row = self._row_of(event)
            if isinstance(event, Status):
                if row.replay != event.replay:
                    row.replay, row.asked = event.replay, -math.inf
                if not (event.replay or self._replay):
                    row.follower.on_record = False
                self._give(*row.follower.on_status(event.alert_seq))
                self._remember(row.follower)
            else:
                self._give(*row.follower.on_alert(event))
        if isinstance(event, Status) and self._want_status:
            self._ready.append(event)

    def _row_of(self, event: Alert | Status) -> _Row:
        row = self._rows.get(event.row)
        if row is None:
            follower = Follower(event.row, self._begin(event), on_record=bool(event.journal))
            row = self._rows[event.row] = _Row(follower, event.run)
            while len(self._rows) > ROWS_MOST:
                old = self._rows.pop(next(iter(self._rows)))
                if old.socket:
                    old.socket.close(0)
        elif row.run != event.run:  # the engine restarted: what it published in between is on record
            row.run, row.follower.must_ask, row.trying = event.run, row.follower.on_record, None
        return row

    def _begin(self, event: Alert | Status) -> int | None:
        """The first number wanted of a new row."""
        known = self._cursor.next if self._cursor and event.journal else {}
        if event.row in known:
            return known[event.row]
        if self._where.mode == "connect" and (known or self._rows):
            return 0  # there is one engine at a time: this row replaces the one followed so far
        return self._since

    def _remember(self, follower: Follower) -> None:
        """Enter a new row into the cursor, so that a crash before its first alert loses none."""
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
        for row in self._rows.values():
            if row.trying is not None:
                due = min(due, row.asked + ASK_S)
        return max(0.0, due - now)

    def _tick(self, now: float) -> None:
        silent = now - self._heard >= self._offline_after
        if silent and not self._told_offline:
            self._told_offline = True
            if self.status.state != "offline" or self.status is NOBODY:
                silence = f"for {self._offline_after:g} s"
                reason = f"nothing received {silence} from {self._where.address}: no engine there"
                if self._refused.is_set():
                    reason = str(turned_away(self._where))
                elif self.status.run:
                    reason = f"no heartbeat {silence}"
                self.status = replace(self.status, state="offline", reason=reason)
                if self._want_status:
                    self._ready.append(self.status)
        for row in self._rows.values():
            self._ask(row, now, alive=not silent)

    def _ask(self, row: _Row, now: float, alive: bool) -> None:
        since = row.follower.next_request()
        if since is None:
            row.trying = None
            return
        if row.trying is None:
            row.trying, row.asked = now, -math.inf
        if not alive:  # nobody could answer
            row.trying = now
        if now - row.trying >= self._patience:
            self._give(*row.follower.give_up(f"the replay gave no answer for {self._patience:g} s"))
            row.trying = None
            return
        if now - row.asked < ASK_S:
            return
        if row.socket and row.ask >= 0:  # no answer: the engine at the other end may be gone
            row.socket.close(0)
            row.socket = None
        row.socket = row.socket or self._connect(row)
        row.asked, row.ask, row.since = now, next(self._numbers), since
        if row.socket:
            journal = row.follower.row
            row.socket.send(encode_request(Request(row.ask, journal, since)))

    def _connect(self, row: _Row) -> zmq.Socket[bytes] | None:
        """A connection to the replay; None if its address is not known yet, or not allowed."""
        text = self._replay or (f"dealer+connect:{self._reachable(row.replay)}" if row.replay else "")
        if not text:
            return None
        try:
            where = Endpoint.parse(text, ("dealer",))
            where.check_reach(self._allow_remote, self._keys)
            return where.open(self._context, hwm=1000, keys=self._keys)
        except SettingsError as e:
            row.follower.on_record = False
            self._give(*row.follower.give_up(str(e)))
            return None

    def _reachable(self, address: str) -> str:
        """Replace an address of all interfaces by the engine's host, as this subscriber names it."""
        for every in ("tcp://0.0.0.0:", "tcp://[::]:"):
            if address.startswith(every) and self._where.address.startswith("tcp://"):
                return f"{self._where.address.rpartition(':')[0]}:{address.rpartition(':')[2]}"
        return address

    def _answered(self, row: _Row, socket: zmq.Socket[bytes]) -> None:
        try:
            answer = decode_answer(socket.recv_multipart())
        except WireError:
            return  # it is asked again when due
        if answer.ask != row.ask or answer.error:
            return
        row.ask = -1
        a = answer
        self._give(*row.follower.on_answer(row.since, a.alerts, a.upto, a.first, a.next, a.began, a.thinned))
        row.trying = None  # what is still missing is asked for at once
        self._remember(row.follower)

    def close(self) -> None:
        """Close at once. The cursor does not move."""
        for row in self._rows.values():
            if row.socket:
                row.socket.close(0)
        self._stack.close()

    def __enter__(self) -> AlertSubscriber:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
