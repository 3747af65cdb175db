"""Runs the main loop, which takes pose messages through every stage to alerts.

source ─► decode ─► ledger ─► windows ─► batch ─► engine ─► score ─► alert book ─► announcer
          Decoder      Arrivals             Dispatch          judge
  └──────────────────── one thread, drained receive ────────────────────┘
While the engine computes, the loop receives messages and stages the next batch. The support watcher, and the page with
metrics and readiness, have threads of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np

from edge.alerts.alike import Earlier, near_of
from edge.alerts.announce import Announcer, Cause
from edge.alerts.book import Change
from edge.alerts.evidence import AlertWindow, Evidence
from edge.alerts.explain import ROWS, explain
from edge.bundle import Bundle
from edge.engine import Engine
from edge.errors import EngineError, WireError
from edge.events import Provenance, Status
from edge.grid import SECOND, WindowSpec
from edge.inference.batch import InFlight
from edge.inference.counts import Counts
from edge.inference.dispatch import Dispatch
from edge.ingest.arrivals import Arrivals
from edge.ingest.drain import Decoder
from edge.ingest.health import StreamHealth, named
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
LISTED = 100
"""How many silent streams, and how many warnings, a status lists at most."""
STILL_S = 30.0
"""Seconds without progress after which the loop or the engine counts as hung, as a rule in a driver: the loop has not
looked for messages, or the engine has finished no batch."""


class SupportFeed(Protocol):
    """Hands over each newly loaded support set once.

    `trouble` says why the support folder's present state is not in use; empty if it is.
    """

    trouble: str

    def take(self) -> SupportSet | None: ...


class Runtime:
    """Holds and drives everything between a source and a sink.

    `clock` returns monotonic seconds, `wall` the time of day in ns.
    """

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
        # Windows of what is written together come in an order of their own. That spans a timeout and a sweep at most
        # (see `Windows.advance`), and a window ends at most a gap before the frame that it came with.
        self._earlier = Earlier(spec.timeout + spec.timeout // 4 + spec.max_gap)
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
        self.health = StreamHealth(s.expected, s.silent_after, s.max_streams, self.notices, clock())
        self._arrivals = Arrivals(
            self.windows, self.ledger, self.notices, self.dispatch.stage, self._release, self.health.ended
        )
        self.state: Literal["online", "degraded", "draining", "offline"] = "online"
        self.reason = self._not_taken = ""
        self.stopping = False
        self._status_at, self._started = float("-inf"), clock()
        self._received = self._progress_at = clock()
        self._swap(support)

    # ---- the loop ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`; then judge what has arrived, end the standing alerts and publish "offline"."""
        self._housekeeping()
        while not self.stopping:
            self.step(self.dispatch.patience(IDLE_S))
        self._set_state("draining", "stopping")
        until = self.clock() + DRAIN_S
        while self.step(0) and self.clock() < until:
            pass
        self.dispatch.flush()
        self._publish(self.book.close(np.flatnonzero(self.book.raised).tolist()), "the engine was stopped")
        self._set_state("offline", "stopped")

    def stop(self) -> None:
        """Leave the loop after the current step; may be called from a signal handler."""
        self.stopping = True

    def step(self, timeout: float) -> int:
        """Do one turn of the loop: receive, stage, run what is due. Returns the number of messages received."""
        messages = self.source.receive(timeout)
        now = self._received = self.clock()
        if not self.dispatch.in_flight:  # otherwise only a finished batch is progress: the loop runs on if one hangs
            self._progress_at = now
        if self._feed is not None and (fresh := self._feed.take()) is not None:
            self._take_support(fresh)
        if messages:
            self._accept(messages, now)
        self.dispatch.turn()
        self._housekeeping()
        return len(messages)

    def _accept(self, messages: list[list[bytes]], now: float) -> None:
        """Decode messages, account for them, and write their people into windows. No message can stop the loop."""
        drain = self._decode(messages)
        self.ledger.unstamped += drain.unstamped
        if self._tap is not None and self._tap.listening(now):
            for i in drain.message:
                self._tap.send(messages[i])
        self._arrivals.take(drain, now)

    def _refuse(self, e: WireError) -> None:
        self.ledger.dropped[e.reason] += 1
        self.notices.say(f"message dropped: {e}", e.reason)

    def _judge(self, batch: InFlight, distance: Float) -> None:
        """Judge a batch's distances (n, G); publish the alerts that changed, and the scores if anybody subscribes."""
        self._progress_at = self.clock()
        if self.state == "degraded":
            self._set_state("online", "")
        poor, odd = batch.seen < self.settings.min_visible, ~np.isfinite(distance).all(1)
        for reason, mask in (("too_few_joints", poor), ("not_finite", odd & ~poor)):
            if mask.any():
                self.counts.skipped[reason] += int(mask.sum())
        unclear, keep = batch.slots[poor | odd], np.flatnonzero(~(poor | odd))
        self.judge.unclear(unclear)
        self.counts.windows += len(keep)
        slots, ends = batch.slots[keep], batch.ends[keep]
        found = self.judge(slots, ends, distance[keep], batch.seen[keep])
        # Explaining runs the engine, perhaps in this batch's own buffer: copy the windows that are needed first.
        shown = {
            c.index: batch.window(int(keep[c.index]))
            for c in found.changes
            if c.raised or (self.evidence and c.type == "update")
        }
        nearest = distance[keep, found.nearest]
        for c in found.changes:
            if c.raised:
                self._explain(c, *shown[c.index], int(found.nearest[c.index]))
            self._publish([c])
            if self.evidence and c.index in shown:
                self._keep_window(c, *shown[c.index])
        self.announcer.scores(slots, ends, found.score, nearest, found.nearest, self.support.names, unclear)

    def _explain(self, c: Change, joints: Float, visible: Float, category: int) -> None:
        """Find the cause of a raised alert by running its window through the graph, and hand it to the announcer."""
        cause = Cause(self.support.names[category])
        try:
            with self.dispatch.batch.put_aside(ROWS):
                why = explain(self.engine, joints, visible, category, self.bundle.manifest.seconds)
        except EngineError as e:
            self._fail(e)
        else:
            clip = self.support.nearest_clip(why.embedding, category)
            moment = tuple(c.end - round(ago * SECOND) for ago in why.moment or ())
            stream, _ = self.windows.who(c.slot)
            like = self._earlier.like(stream, c.id, c.end, why.embedding, self._near)
            cause = Cause(cause.category, clip, why.joints, moment, like)
        self.announcer.cause(c.slot, cause)

    def _keep_window(self, c: Change, joints: Float, visible: Float) -> None:
        """Keep an alert's window as evidence, in case somebody says that it was normal."""
        assert self.evidence
        (stream, track), cause = self.windows.who(c.slot), self.announcer.cause_of(c.slot)
        self.evidence.put(
            AlertWindow(c.id, stream, track, c.end, cause.category, c.peak, cause.joints, joints, visible)
        )

    # ---- alerts, state and support ---------------------------------------------------------------------------

    def _publish(self, changes: list[Change], why: str = "") -> None:
        for c in changes:
            self.counts.alerts[c.type] += 1
            self.announcer.alert(c, why)

    def _release(self, slots: list[int]) -> None:
        """Release slots whose tracks are gone: judge what is staged of them, end their alerts, free the slots."""
        if slots:
            self.dispatch.release(slots)
            if self.book.may_be_continued(slots):
                # Another track may continue these alerts. Judge all windows that were due before the release first,
                # however busy the engine is, so that the same recording always gives the same alerts.
                self.dispatch.settle()
            self._publish(self.judge.close(slots))
            self.windows.release(slots)

    def _housekeeping(self) -> None:
        """Publish the status every second, or at once for a new subscriber; release the tracks of silent streams."""
        now = self.clock()
        beat = now - self._status_at >= HEARTBEAT_S
        if not (self.sink.newcomers() or beat):
            return
        if beat:
            self._watch_load()
            self.health.check(self.windows, self._received)
        self._say_status()
        # Relative to when the sockets were last read: messages that came while the loop waited for the engine are
        # still unread.
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
        """The engine's state at this moment."""
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
            unclear=self.book.unclear_count,
            silent=list(self.health.silent[:LISTED]),
            warnings=self.health.warnings[:LISTED],
        )

    @property
    def hung(self) -> float:
        """For other threads: seconds without progress of the loop or its batch, 0 while they are within STILL_S."""
        still = self.clock() - self._progress_at
        return still if still > STILL_S and self.state != "offline" else 0.0

    @property
    def ready(self) -> tuple[bool, str]:
        """Whether the engine judges, and a line about its state. For other threads: a GPU that hangs gives no error."""
        if still := self.hung:
            return False, f"{self.state}: no progress by the loop, or by the engine on its batch, for {still:.0f} s"
        ready = self.state == "online"
        silent = f"; silent: {named(self.health.silent)}" if ready and self.health.silent else ""
        return ready, f"{self.state}: {self.reason or 'ok'}{silent}"

    def _say_status(self) -> None:
        self._status_at = self.clock()
        self.announcer.status(self.status())

    def _set_state(self, state: Literal["online", "degraded", "draining", "offline"], reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._say_status()

    def engine_lost(self, e: EngineError, name: str) -> None:
        """Note that engine `name` takes over after error `e`. Not ready until it has judged a batch."""
        self._fail(e)
        self.notices.say(f"engine {name} takes over")
        self.announcer.by = replace(self.announcer.by, engine=name)

    def _fail(self, e: EngineError) -> None:
        self.notices.say(f"degraded: {e}", "engine")
        if self.state in ("online", "degraded"):
            self._set_state("degraded", str(e))

    def _take_support(self, fresh: SupportSet) -> None:
        """Switch to a newly loaded support set between two batches; if the engine refuses it, keep the old one."""
        self.dispatch.settle()
        try:
            self._swap(fresh)
        except EngineError as e:
            if e.lost:
                self._fail(e)
            self._not_taken = f"support {fresh.version} is not used: {e}"
            self.notices.say(self._not_taken)
        else:
            self._not_taken = ""
            self.notices.say(f"support {fresh.version}: {fresh.summary}")

    def _swap(self, support: SupportSet) -> None:
        self.engine.bind(support.features, support.mask)
        self.support, trouble = support, self.judge.use(support)
        self._near = near_of(support.limit[: len(support.names)])
        self.announcer.by = Provenance(self.bundle.model, self.engine.name, support.version)
        self.counts.swaps += 1
        for problem in (*support.problems, *trouble):
            self.notices.say(problem)
