"""Measures the first three stages alone: what one core receives, decodes and cuts into windows.

    cameras (a process) ── poses, flat out ──► ZmqSource ─► Decoder ─► Arrivals ─► Windows ─► copies of due windows

CPU is that of the whole process, ZeroMQ's own thread included.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bench.traffic import Load
from edge.engine import Staging
from edge.grid import WindowSpec
from edge.ingest.arrivals import Arrivals
from edge.ingest.drain import Decoder
from edge.ingest.source import Ledger
from edge.notices import Notices
from edge.settings import Settings
from edge.windows import Slots, Windows
from edge.wire import Limits

FRAMES, WINDOW_S = 48, 2.0
GATHER_S = 0.005
"""One camera process may send less than this one can take. Then wait so that messages gather, as at full load."""


class Front:
    """The three stages, joined as in the loop. `step` passes messages through; `windows` counts the copied windows."""

    def __init__(self, s: Settings) -> None:
        spec = WindowSpec.of(FRAMES, WINDOW_S, s.stride, s.max_gap, s.track_timeout)
        self._arena, self.ledger = Windows(spec, s.max_tracks, s.max_streams), Ledger()
        limits = Limits(s.max_message_bytes, s.max_people)
        self._decode = Decoder(limits, s.min_confidence, lambda e: self.ledger.dropped.update([e.reason]))
        notices = Notices(sys.stderr)
        self._arrivals = Arrivals(self._arena, self.ledger, notices, self._copy, self._arena.release, lambda _: None)
        self._staging, self.windows = Staging.empty(s.max_batch, FRAMES), 0

    def step(self, messages: list[list[bytes]]) -> None:
        self._arrivals.take(self._decode(messages), time.monotonic())

    def _copy(self, slots: Slots, _ends: NDArray[np.int64], _now: float) -> None:
        for at in range(0, len(slots), self._staging.size):
            some = slots[at : at + self._staging.size]
            self._arena.gather(some, self._staging.joints[: len(some)], self._staging.visible[: len(some)])
        self.windows += len(slots)


def front(root: Path, load: Load, settings: Settings, seconds: float) -> dict[str, Any]:
    """Person-frames per CPU second over real ZeroMQ, once every track has had two windows; and what was dropped."""
    import zmq

    from edge.bench.generator import sending
    from edge.ingest.source import DRAIN, ZmqSource
    from edge.network.endpoint import Endpoint

    address, context = f"ipc://{root}/front{time.monotonic_ns():x}", zmq.Context()
    source, stages = ZmqSource(context, [Endpoint.parse(f"pull+bind:{address}")], settings.max_queue), Front(settings)
    try:
        with sending(load, f"push+connect:{address}", paced=False) as poses:
            poses.started()
            while stages.windows < 2 * load.cameras * load.people:
                stages.step(source.receive(0.1))
            people, windows, messages = stages.ledger.people, stages.windows, stages.ledger.frames
            wall, cpu, drains = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - wall < seconds:
                drained = source.receive(0.1)
                stages.step(drained)
                drains += 1
                if len(drained) < DRAIN:
                    time.sleep(GATHER_S)
            cpu = time.process_time() - cpu
    finally:
        source.close()
        context.term()
    people = stages.ledger.people - people
    return {
        "person_frames": people,
        "windows": stages.windows - windows,
        "messages_a_drain": (stages.ledger.frames - messages) / drains,
        "cpu_person_frames_s": people / cpu,
        "dropped": dict(stages.ledger.dropped) | {k: v for k, v in stages._arena.fate.items() if v},
    }
