"""The loop that joins the stations.

    source ─► decode ─► ledger ─► windows ─► staging ─► engine ─► score ─► alert book ─► sink
      └───────────────── one thread, drained receive ─────────────────┘
    beside it: the support watcher's thread, and the page with metrics and readiness
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from edge.alerts import AlertBook, Change, Sink
from edge.bundle import Bundle
from edge.engine import Engine, run_all
from edge.errors import EngineError, WireError
from edge.ingest import Ledger, Source
from edge.notices import Notices
from edge.score import Scorer
from edge.settings import Settings
from edge.skeleton import CORE15, Float, J
from edge.support import SupportSet
from edge.windows import SECOND, Slots, Stream, Windows, WindowSpec
from edge.wire import Alert, Limits, Provenance, Scores, Status, decode_pose, encode_event

HEARTBEAT_S = 1.0
LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)


class SupportFeed(Protocol):
    """Hands over a newly loaded support set, once."""

    def take(self) -> SupportSet | None: ...


@dataclass(slots=True)
class Counts:
    """What the page and the status message tell; written by the loop only."""

    windows: int = 0
    batches: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    swaps: int = 0
    engine_seconds: float = 0.0
    latency: np.ndarray = field(default_factory=lambda: np.zeros(len(LATENCY_BUCKETS) + 1, np.int64))
    latency_sum: float = 0.0


class Runtime:
    """Everything between a source and a sink. `clock` is monotonic seconds."""

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
        notices: Notices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        s, m = settings, bundle.manifest
        self.settings, self.bundle, self.engine, self.source, self.sink = s, bundle, engine, source, sink
        self.notices, self.clock, self._feed = notices or Notices(), clock, feed
        spec = WindowSpec.of(m.frames, m.seconds, s.stride, s.max_gap, s.track_timeout)
        self.windows = Windows(spec, s.max_tracks, s.max_streams)
        self.book = AlertBook(
            s.max_tracks,
            threshold=s.threshold,
            release=s.release,
            raise_after=s.raise_after,
            clear_after=s.clear_after,
            update_every=s.update_every,
        )
        self.limits = Limits(s.max_message_bytes, s.max_people)
        self.ledger, self.counts = Ledger(), Counts()
        self.run_id = uuid.uuid4().hex[:12]
        self.state: Literal["online", "degraded", "draining", "offline"] = "online"
        self.reason = ""
        self.stopping = False
        # The staged windows: filled in place, described by equally long columns.
        size = engine.staging.size
        self._filled, self._oldest = 0, 0.0
        self._slots = np.zeros(size, np.intp)
        self._ends, self._born = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._arrived = np.zeros(size)
        self._status_seq, self._alert_seq = 0, 0
        self._score_seq: dict[str, int] = {}
        self._last: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._beat = float("-inf")
        self._started = clock()
        self._swap(support)

    # ---- the loop -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`, then drain what has arrived, and say goodbye."""
        self._housekeeping()
        while not self.stopping:
            self.step(self._patience())
        self.state, self.reason = "draining", "stopping"
        self._say_status()
        drain_until = self.clock() + 2
        while self.clock() < drain_until and self.step(0):
            pass
        self.flush()
        self.state, self.reason = "offline", "stopped"
        self._say_status()

    def stop(self) -> None:
        """Leave the loop after the current step; may be called from a signal handler."""
        self.stopping = True

    def step(self, timeout: float) -> int:
        """One turn: receive, stage, run what is due. Returns how many messages there were."""
        messages = self.source.receive(timeout)
        now = self.clock()
        for parts in messages:
            self._accept(parts, now)
        if self._filled and self.clock() - self._oldest >= self.settings.batch_deadline:
            self.flush()
        self._housekeeping()
        return len(messages)

    def _patience(self) -> float:
        """Seconds to wait for a message: until the batch's deadline, or the next piece of housekeeping."""
        if not self._filled:
            return 0.1
        return max(0.0, min(0.1, self._oldest + self.settings.batch_deadline - self.clock()))

    def _accept(self, parts: list[bytes], now: float) -> None:
        try:
            frame = decode_pose(parts, self.limits)
        except WireError as e:
            self.ledger.dropped[e.reason] += 1
            self.notices.say(f"message dropped: {e}", e.reason)
            return
        stream = self.windows.stream_named(frame.stream)
        if stream is None:
            self.notices.say(f"stream {frame.stream} is one too many: max_streams is {self.settings.max_streams}", "full")
            return
        stream.heard = now
        missing = self.ledger.enter(stream, frame.seq)
        if missing:
            self.notices.say(f"stream {frame.stream}: {missing} messages lost before seq {frame.seq}", frame.stream)
        if len(frame.ids):
            joints, visible, bad = frame.core15(self.settings.min_confidence)
            self.ledger.people += len(frame.ids)
            if bad:
                self.ledger.bad_joints += bad
                self.notices.say(f"stream {frame.stream}: {bad} joints not finite, taken as hidden", "bad_joints")
            full = self.windows.fate["tracks_full"]
            for slots, ends in self.windows.push(stream, frame.t, frame.ids, joints, visible):
                self._stage(slots, ends, now)
            if self.windows.fate["tracks_full"] > full:
                self.notices.say(f"no room for another track: max_tracks is {self.settings.max_tracks}", "tracks_full")
        gone = list(stream.slots.values()) if frame.end else self.windows.expired(stream)
        if gone:
            self._release(gone)
        if frame.end:
            self._drop(stream)

    def _stage(self, slots: Slots, ends: np.ndarray, now: float) -> None:
        """Copy due windows into the engine's input, running a batch whenever it is full."""
        while len(slots):
            if not self._filled:
                self._oldest = now
            a, n = self._filled, min(len(slots), self.engine.staging.size - self._filled)
            part = slice(a, a + n)
            staging = self.engine.staging
            self.windows.gather(slots[:n], staging.joints[part], staging.visible[part])
            self._slots[part], self._ends[part], self._arrived[part] = slots[:n], ends[:n], now
            self._born[part] = self.windows.born[slots[:n]]
            self._filled += n
            slots, ends = slots[n:], ends[n:]
            if self._filled == staging.size:
                self.flush()

    def flush(self) -> None:
        """Run the staged windows and publish what they say. A support swap takes effect here, between batches."""
        if self._feed is not None and (fresh := self._feed.take()) is not None:
            self._swap(fresh)
        n, self._filled = self._filled, 0
        if not n:
            return
        before = self.clock()
        try:
            _, distance = self.engine.run(n)
        except EngineError as e:
            self.counts.skipped["engine_failed"] += n
            self._degrade(str(e))
            return
        after = self.clock()
        self._recover()
        self.counts.batches += 1
        self.counts.engine_seconds += after - before
        latency = after - self._arrived[:n]
        self.counts.latency += np.bincount(np.searchsorted(LATENCY_BUCKETS, latency), minlength=len(LATENCY_BUCKETS) + 1)
        self.counts.latency_sum += float(latency.sum())
        self._judge(n, distance)

    def _judge(self, n: int, distance: Float) -> None:
        """Score a batch's distances (n, G) and tell: alerts first, then scores to those who listen."""
        slots = self._slots[:n]
        poor = self.engine.staging.visible[:n].mean((1, 2)) < self.settings.min_visible
        gone = self._born[:n] != self.windows.born[slots]
        odd = ~np.isfinite(distance).all(1)
        for reason, mask in (("too_few_joints", poor), ("track_gone", gone & ~poor), ("not_finite", odd & ~poor & ~gone)):
            if mask.any():
                self.counts.skipped[reason] += int(mask.sum())
        keep = np.flatnonzero(~(poor | gone | odd))
        keep = keep[[self.windows.stream[s] is not None for s in slots[keep]]]
        if not len(keep):
            return
        self.counts.windows += len(keep)
        score, nearest = self._scorer(distance[keep])
        streams = [self.windows.stream[s] for s in slots[keep]]
        labels = [f"{st.name}|{self.windows.track[s]}" for st, s in zip(streams, slots[keep], strict=True) if st]
        category = [self.support.names[g] for g in nearest]
        changes = self.book.update(slots[keep], self._ends[keep], score, labels)
        # The staging buffer serves the explanations too, so keep what they need first.
        staged = {
            c.index: (self.engine.staging.joints[keep[c.index]].copy(), self.engine.staging.visible[keep[c.index]].copy())
            for c in changes
            if c.type == "new"
        }
        for c in changes:
            if c.type == "new":
                self._last[c.slot] = (category[c.index], self._blame(*staged[c.index], int(nearest[c.index])))
            self._say_alert(c)
        self._say_scores([st.name for st in streams if st], keep, score, distance, nearest, category)

    def _blame(self, joints: Float, visible: Float, category: int) -> tuple[str, ...]:
        """The joints whose hiding brings the window nearest to `category`, most first, by asking the graph itself."""
        hidden = np.repeat(visible[None], J + 1, 0)
        hidden[np.arange(J), :, np.arange(J)] = 0
        try:
            distance = run_all(self.engine, np.repeat(joints[None], J + 1, 0), hidden)[1][:, category]
        except EngineError as e:
            self._degrade(str(e))
            return ()
        gain = distance[J] - distance[:J]
        order = [int(j) for j in np.argsort(-gain)[:3] if gain[j] > 0]
        return tuple(CORE15[j] for j in order)

    # ---- what is said ---------------------------------------------------------------------------------------

    def _say_alert(self, c: Change) -> None:
        stream = self.windows.stream[c.slot]
        if stream is None:
            return
        category, joints = self._last.get(c.slot, ("", ()))
        lasted = (c.end - c.start) / SECOND
        reason = {
            "new": f"unlike '{category}' and everything else in the support for {self.settings.raise_after} windows",
            "update": f"still abnormal after {lasted:.1f} s",
            "end": "the track is gone" if c.index < 0 else f"normal again after {lasted:.1f} s",
        }[c.type]
        alert = Alert(
            c.id,
            c.type,
            self._alert_seq,
            self.run_id,
            stream.name,
            int(self.windows.track[c.slot]),
            c.start,
            c.end,
            c.score,
            c.peak,
            category,
            joints,
            reason,
            self.by,
        )
        self._alert_seq += 1
        self.counts.alerts[c.type] += 1
        self.sink.send(encode_event(alert))
        if c.type == "end":
            self._last.pop(c.slot, None)

    def _say_scores(
        self,
        streams: list[str],
        keep: np.ndarray,
        score: Float,
        distance: Float,
        nearest: np.ndarray,
        category: list[str],
    ) -> None:
        names = np.array(streams)
        for name in dict.fromkeys(streams):
            if not self.sink.wanted(f"score/{name}".encode()):
                continue
            rows = np.flatnonzero(names == name)
            seq = self._score_seq.get(name, 0)
            self._score_seq[name] = seq + 1
            at = keep[rows]
            message = Scores(
                seq,
                self.run_id,
                name,
                self.windows.track[self._slots[at]].tolist(),
                self._ends[at].tolist(),
                score[rows].tolist(),
                distance[at, nearest[rows]].tolist(),
                [category[r] for r in rows],
                self.by,
            )
            self.sink.send(encode_event(message))

    def status(self) -> Status:
        """The engine's state now."""
        return Status(
            self._status_seq,
            self.run_id,
            self.state,
            self.reason,
            round(self.clock() - self._started, 3),
            self._alert_seq,
            len(self.windows.streams),
            self.windows.live,
            self.ledger.frames,
            self.ledger.lost,
            self.counts.windows,
            self.by,
        )

    def _say_status(self) -> None:
        self.sink.send(encode_event(self.status()))
        self._status_seq += 1
        self._beat = self.clock()

    # ---- the rest -------------------------------------------------------------------------------------------

    def _housekeeping(self) -> None:
        now = self.clock()
        if self.sink.newcomers() or now - self._beat >= HEARTBEAT_S:
            self._say_status()
            for stream in [s for s in self.windows.streams.values() if now - s.heard > self.settings.track_timeout]:
                self._release(list(stream.slots.values()))
                if now - stream.heard > 10 * self.settings.track_timeout:
                    self._drop(stream)
            if not self._filled:
                self.flush()

    def _release(self, slots: list[int]) -> None:
        """Tracks are gone: what is staged of them is judged first, their alerts end, their slots are free."""
        if not slots:
            return
        self.flush()
        for change in self.book.close(slots):
            self._say_alert(change)
        self.windows.release(slots)

    def _drop(self, stream: Stream) -> None:
        self.windows.drop_stream(stream)
        self._score_seq.pop(stream.name, None)

    def _swap(self, support: SupportSet) -> None:
        self.support = support
        self.engine.bind(support.features, support.mask)
        self._scorer = Scorer(support.limit)
        self.by = Provenance(self.bundle.model, self.engine.name, support.version)
        self.counts.swaps += 1
        for problem in support.problems:
            self.notices.say(problem)

    def _degrade(self, reason: str) -> None:
        self.notices.say(f"degraded: {reason}", "engine")
        if self.state == "online":
            self.state, self.reason = "degraded", reason
            self._say_status()

    def _recover(self) -> None:
        if self.state == "degraded":
            self.state, self.reason = "online", ""
            self._say_status()
