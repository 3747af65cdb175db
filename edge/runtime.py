"""The loop that joins the stations.

source ─► decode ─► ledger ─► windows ─► batch ─► engine ─► score ─► alert book ─► announcer
          Decoder      Arrivals             Dispatch          judge
  └──────────────────── one thread, drained receive ────────────────────┘
While the engine computes, the loop receives and stages the next batch. Beside it: the support watcher's thread, and the
page with metrics and readiness.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np

from edge.alerts.announce import Announcer, Cause
from edge.alerts.book import Change
from edge.alerts.evidence import Evidence, Exhibit
from edge.alerts.explain import ROWS, explain
from edge.bundle import Bundle
from edge.engine import Engine
from edge.errors import EngineError, WireError
from edge.events import Provenance, Status
from edge.grid import SECOND, WindowSpec
from edge.inference.batch import Flight
from edge.inference.counts import Counts
from edge.inference.dispatch import Dispatch
from edge.ingest.arrivals import Arrivals
from edge.ingest.drain import Decoder
from edge.ingest.pace import Pace, Stay
from edge.ingest.posture import Posture
from edge.ingest.source import Ledger, Source
from edge.ingest.tap import Tap
from edge.judge import Judge
from edge.network.sink import Sink
from edge.notices import Notices
from edge.settings import Settings
from edge.skeleton import Float
from edge.support.enrol import SupportSet
from edge.windows import Windows
from edge.wire import Limits

HEARTBEAT_S = 1.0
IDLE_S = 0.1
DRAIN_S = 2.0
STILL_S = 30.0
"""A loop that has not looked for messages, or an engine that has finished no batch, for so long hangs, in a driver as a
rule."""


class SupportFeed(Protocol):
    """Hands over a newly loaded support set, once. `trouble`: why the folder as it is now is not in use."""

    trouble: str

    def take(self) -> SupportSet | None: ...


class Runtime:
    """Everything between a source and a sink. `clock` is monotonic seconds, `wall` the time of day in ns."""

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        engine: Engine,
        support: SupportSet,
        source: Source,
        sink: Sink,
        *,
        feed: SupportFeed | None = None,
        tap: Tap | None = None,
        evidence: Evidence | None = None,
        notices: Notices | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        s, m = settings, bundle.manifest
        self.settings, self.bundle, self.engine, self.source, self.sink = s, bundle, engine, source, sink
        self.notices, self.clock, self.wall, self._feed = notices or Notices(), clock, wall, feed
        self._tap, self.evidence = tap, evidence
        spec = WindowSpec.of(m.frames, m.seconds, s.stride, s.max_gap, s.track_timeout)
        self.windows = Windows(spec, s.max_tracks, s.max_streams)
        self.judge = Judge(s, bundle.calibration(), s.max_tracks, self.windows)
        self.book = self.judge.book
        self.announcer = Announcer(sink, self.windows)
        self.announcer.threshold = self.book.threshold
        limits = Limits(s.max_message_bytes, s.max_people)
        self._decode = Decoder(limits, s.min_confidence, self._refuse, lambda: self.wall())
        self.ledger, self.counts = Ledger(), Counts()
        self.dispatch = Dispatch(
            engine,
            self.windows,
            self.counts,
            self._judge,
            self._fail,
            policy=s.overload or "wait",
            deadline=s.batch_deadline,
            clock=clock,
        )
        self._arrivals = Arrivals(self.windows, self.ledger, self.notices, self.dispatch.stage, self._release)
        self._pace, self._stay, self._posture = Pace(self.notices), Stay(self.notices), Posture(self.notices)
        self.state: Literal["online", "degraded", "draining", "offline"] = "online"
        self.reason = self._not_taken = ""
        self.stopping = False
        self._beat, self._started = float("-inf"), clock()
        self._received = self._moved = clock()
        self._swap(support)

    # ---- the loop ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`, then judge what has arrived, and say goodbye."""
        self._housekeeping()
        while not self.stopping:
            self.step(self.dispatch.patience(IDLE_S))
        self._become("draining", "stopping")
        until = self.clock() + DRAIN_S
        while self.step(0) and self.clock() < until:
            pass
        self.dispatch.flush()
        self._tell(self.book.close(np.flatnonzero(self.book.raised).tolist()), "the engine was stopped")
        self._become("offline", "stopped")

    def stop(self) -> None:
        """Leave the loop after the current step; may be called from a signal handler."""
        self.stopping = True

    def step(self, timeout: float) -> int:
        """One turn: receive, stage, run what is due. Returns how many messages there were."""
        messages = self.source.receive(timeout)
        now = self._received = self.clock()
        if not self.dispatch.under_way:  # else the engine has to move: the loop may go on beside one that hangs
            self._moved = now
        if self._feed is not None and (fresh := self._feed.take()) is not None:
            self._take_support(fresh)
        if messages:
            self._accept(messages, now)
        self.dispatch.turn()
        self._housekeeping()
        return len(messages)

    def _accept(self, messages: list[list[bytes]], now: float) -> None:
        """Take messages through decoding and accounting to their windows. Whatever they are, the loop goes on."""
        drain = self._decode(messages)
        self.ledger.unstamped += drain.unstamped
        if self._tap is not None and self._tap.listening(now):
            for i in drain.message:
                self._tap.send(messages[i])
        self._arrivals.take(drain, now)

    def _refuse(self, e: WireError) -> None:
        self.ledger.dropped[e.reason] += 1
        self.notices.say(f"message dropped: {e}", e.reason)

    def _judge(self, flight: Flight, distance: Float) -> None:
        """Judge a batch's distances (n, G), publish what changed, and the scores to those who listen."""
        self._moved = self.clock()
        if self.state == "degraded":
            self._become("online", "")
        poor, odd = flight.seen < self.settings.min_visible, ~np.isfinite(distance).all(1)
        for reason, mask in (("too_few_joints", poor), ("not_finite", odd & ~poor)):
            if mask.any():
                self.counts.skipped[reason] += int(mask.sum())
        unclear, keep = flight.slots[poor | odd], np.flatnonzero(~(poor | odd))
        self.judge.unclear(unclear)
        self.counts.windows += len(keep)
        slots, ends = flight.slots[keep], flight.ends[keep]
        found = self.judge(slots, ends, distance[keep], flight.seen[keep])
        # Explaining runs the engine, maybe in the very buffer of this flight: copy those that need it first.
        shown = {
            c.index: flight.window(int(keep[c.index]))
            for c in found.changes
            if c.raised or (self.evidence and c.type == "update")
        }
        nearest = distance[keep, found.nearest]
        for c in found.changes:
            if c.raised:
                self._explain(c, *shown[c.index], int(found.nearest[c.index]))
            self._tell([c])
            if self.evidence and c.index in shown:
                self._put_by(c, *shown[c.index], self.support.names[found.nearest[c.index]])
        self.announcer.scores(slots, ends, found.score, nearest, found.nearest, self.support.names, unclear)

    def _explain(self, c: Change, joints: Float, visible: Float, category: int) -> None:
        """Find out from the graph what an alert's window differs from, and where."""
        cause = Cause(self.support.names[category])
        try:
            with self.dispatch.batch.put_aside(ROWS):
                why = explain(self.engine, joints, visible, category, self.bundle.manifest.seconds)
        except EngineError as e:
            self._fail(e)
        else:
            clip = self.support.nearest_clip(why.embedding, category)
            moment = tuple(c.end - round(ago * SECOND) for ago in why.moment or ())
            cause = Cause(cause.category, clip, why.joints, moment)
        self.announcer.cause(c.slot, cause)

    def _put_by(self, c: Change, joints: Float, visible: Float, nearest: str) -> None:
        """Keep the window of an alert, in case somebody says that it was normal."""
        assert self.evidence
        stream, track = self.windows.who(c.slot)
        self.evidence.put(Exhibit(c.id, stream, track, c.end, nearest, joints, visible))

    # ---- the rest ----------------------------------------------------------------------------------------------

    def _tell(self, changes: list[Change], why: str = "") -> None:
        for c in changes:
            self.counts.alerts[c.type] += 1
            self.announcer.alert(c, why)

    def _release(self, slots: list[int]) -> None:
        """Tracks are gone: what is staged of them is judged first, their alerts end, their slots are free."""
        if slots:
            self.dispatch.release(slots)
            if self.book.tells(slots):
                # Another track may go on with their alerts: whose windows were due before is judged before, however
                # busy the engine is, so that the same recording gives the same alerts.
                self.dispatch.settle()
            self._tell(self.judge.close(slots))
            self.windows.release(slots)

    def _housekeeping(self) -> None:
        """Every second, or for a new subscriber at once: the status; and silent streams are let go."""
        now = self.clock()
        beat = now - self._beat >= HEARTBEAT_S
        if not (self.sink.newcomers() or beat):
            return
        if beat:
            self._watch_load()
            self._pace.look(self.windows.streams.values(), self._received)
            self._stay.look(self.windows, self._received)
            self._posture.look(self.windows, self._received)
        self._say_status()
        # By when the sockets were read last: what has come while the engine was waited for is not heard yet.
        timeout, read = self.settings.track_timeout, self._received
        for stream in [s for s in self.windows.streams.values() if read - s.heard > timeout]:
            self._release(list(stream.slots.values()))
            if read - stream.heard > 10 * timeout:
                self.windows.drop_stream(stream)

    def _watch_load(self) -> None:
        load = self.dispatch.overload
        load.every_second()
        if load.reason:
            self.notices.say(load.reason, "overload")
        if self.state == "online":
            support = self._not_taken or (self._feed.trouble if self._feed else "")
            self.reason = "; ".join(filter(None, (load.reason, support)))

    def status(self) -> Status:
        """The engine's state now."""
        return Status(
            seq=self.announcer.status_seq,
            run=self.announcer.run,
            state=self.state,
            reason=self.reason,
            seconds=round(self.clock() - self._started, 3),
            alert_seq=self.announcer.alert_seq,
            streams=len(self.windows.streams),
            tracks=self.windows.live,
            frames=self.ledger.frames,
            frames_lost=self.ledger.lost,
            windows=self.counts.windows,
            by=self.announcer.by,
            unclear=self.book.poor,
        )

    @property
    def ready(self) -> tuple[bool, str]:
        """Whether it judges, and what there is to be said of it. For other threads: a GPU that hangs gives no error."""
        still = self.clock() - self._moved
        if still > STILL_S and self.state != "offline":
            return False, f"{self.state}: the loop, or the engine with a batch, has stood still for {still:.0f} s"
        return self.state == "online", f"{self.state}: {self.reason or 'ok'}"

    def _say_status(self) -> None:
        self._beat = self.clock()
        self.announcer.status(self.status())

    def _become(self, state: Literal["online", "degraded", "draining", "offline"], reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._say_status()

    def engine_lost(self, e: EngineError, name: str) -> None:
        """Another engine has to take over: not ready, for that reason, until it has judged a batch."""
        self._fail(e)
        self.notices.say(f"engine {name} takes over")
        self.announcer.by = replace(self.announcer.by, engine=name)

    def _fail(self, e: EngineError) -> None:
        self.notices.say(f"degraded: {e}", "engine")
        if self.state in ("online", "degraded"):
            self._become("degraded", str(e))

    def _take_support(self, fresh: SupportSet) -> None:
        """Put a newly loaded support set in place, between two batches; one that the engine refuses is left."""
        self.dispatch.settle()
        try:
            self._swap(fresh)
        except EngineError as e:
            if e.lost:
                self._fail(e)
            self._not_taken = f"support {fresh.version} is not taken: {e}"
            self.notices.say(self._not_taken)
        else:
            self._not_taken = ""
            self.notices.say(f"support {fresh.version}: {fresh.summary}")

    def _swap(self, support: SupportSet) -> None:
        self.engine.bind(support.features, support.mask)
        self.support, trouble = support, self.judge.use(support)
        self.announcer.by = Provenance(self.bundle.model, self.engine.name, support.version)
        self.counts.swaps += 1
        for problem in (*support.problems, *trouble):
            self.notices.say(problem)
