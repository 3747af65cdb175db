"""Profiles the engine's loop in this process, unchanged: which stage its CPU time goes into.

A timer samples the loop's thread a thousand times a second, and adds the CPU time since the last sample to the stage
whose code is running, by the file of that code. Python handles signals only between bytecodes, and the inference is one
long call, so it is timed with a clock instead. Here inference takes turns with the loop, and does not run beside it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import numpy as np

from edge.bench.machine import resident
from edge.bench.traffic import Camera, Load, Trace, recorded
from edge.bundle import Bundle, open_bundle
from edge.engine import Engine, open_engine
from edge.engine.fallback import in_order
from edge.runtime import Runtime
from edge.settings import Settings
from edge.skeleton import Float, J
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.support.transitions import TransitionPlan

EVERY_S = 0.001
STAGE_OF_FILE: Mapping[str, str] = {
    "ingest/source.py": "receive", "events.py": "publish", "alerts/announce.py": "publish",
    **dict.fromkeys(("wire.py", "ingest/drain.py", "ingest/template.py", "ingest/mapping.py", "skeleton.py"), "decode"),
    **dict.fromkeys(("ingest/arrivals.py", "windows.py", "inference/batch.py"), "window"),
    **dict.fromkeys(("judge.py", "score.py", "alerts/book.py", "alerts/explain.py"), "score"),
    **dict.fromkeys(("inference/dispatch.py", "inference/overload.py", "inference/backlog.py"), "loop"),
    **dict.fromkeys(("inference/counts.py", "runtime.py"), "loop"),
}  # fmt: skip
"""Innermost module of ours on the stack → stage. Code in any other file counts for its caller."""
PUBLISHING = ("send", "newcomers", "wanted", "encode_event", "join")
"""Functions that count as publishing, whichever stage their file belongs to."""
STAGES = ("receive", "decode", "window", "engine", "score", "publish", "loop")
_HERE = str(Path(__file__).parents[1])


class Stages:
    """CPU seconds of the main thread by stage, while `watching`; and those of an engine whose `run` is `timed`."""

    def __init__(self, stage_of_file: Mapping[str, str] = STAGE_OF_FILE, root: str = _HERE) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stage_of_file, self._root, self._last = stage_of_file, f"{root}/", 0.0
        self.inferred = 0
        """Windows that a timed engine ran, including those that explain alerts."""
        self._inference = False

    def _stage(self, frame: FrameType | None) -> str:
        while frame is not None:
            code = frame.f_code
            if found := self._stage_of_file.get(code.co_filename.removeprefix(self._root)):
                return "publish" if code.co_name in PUBLISHING else found
            frame = frame.f_back
        return "loop"

    def timed(self, run: Callable[[int], Any]) -> Callable[[int], Any]:
        """Wrap an engine's `run` to measure its CPU time exactly."""

        def inference(n: int) -> Any:
            self._inference, before = True, time.thread_time()
            try:
                return run(n)
            finally:
                took = time.thread_time() - before
                self.seconds["engine"] += took
                self.inferred += n
                self._last += took  # time before the inference is left for the next sample
                self._inference = False

        return inference

    def _look(self, _: int, frame: FrameType | None) -> None:
        if self._inference:
            return
        now = time.thread_time()
        self.seconds[self._stage(frame)] += now - self._last
        self._last = time.thread_time()  # the time taken by sampling is not charged

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Sample inside the block. Main thread only: Python handles signals in no other."""
        before = signal.signal(signal.SIGALRM, self._look)
        self._last = time.thread_time()
        signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class Replay:
    """A source that returns prepared messages, `chunk` at a time."""

    def __init__(self, messages: list[bytes], chunk: int = 256) -> None:
        self.messages, self.chunk, self.at = messages, chunk, 0

    def receive(self, timeout: float) -> Any:
        self.at += self.chunk
        return [[m] for m in self.messages[self.at - self.chunk : self.at]]

    def close(self) -> None: ...


class Silent:
    """A sink without subscribers."""

    def send(self, message: bytes) -> None: ...

    def newcomers(self) -> bool:
        return False

    def wanted(self, topic: bytes) -> bool:
        return False

    def close(self) -> None: ...


class SynchronousEngine:
    """An engine that computes each batch in `submit`, in the loop's own thread, so that its time can be measured.

    With `repeats` it computes each batch size once and then returns that result again, to measure everything else.
    """

    def __init__(self, engine: Engine, *, repeats: bool) -> None:
        self._engine, self._repeats = engine, repeats
        self._known: dict[int, tuple[Float, Float]] = {}
        self._done: list[Float] = []
        self.run: Callable[[int], tuple[Float, Float]] = self._run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def pending(self) -> int:
        return len(self._done)

    full = ready = pending

    def _run(self, n: int) -> tuple[Float, Float]:
        if not self._repeats:
            return self._engine.run(n)
        if n not in self._known:
            self._known[n] = self._engine.run(n)
        return self._known[n]

    def submit(self, n: int) -> None:
        self._done.append(self.run(n)[1])

    def collect(self) -> Float:
        return self._done.pop()


def runtime(root: Path, settings: Settings, source: Any, *, inference: bool, bundle: Bundle | None = None) -> Runtime:
    """The loop between a source and a silent sink; without `inference` the engine repeats its first results."""
    model = bundle or open_bundle(settings.bundle)
    name = in_order(settings.engines, model)[0]
    engine: Any = open_engine(model, name, max_batch=settings.max_batch, threads=settings.threads)
    engine = SynchronousEngine(engine, repeats=not inference)
    transitions = TransitionPlan(settings.normal, settings.max_transitions, engine.categories)
    support = load_support(root / "support", model, engine, FeatureCache(root / "cache"), transitions=transitions)
    return Runtime(settings, model, engine, support, source, Silent())


def stages(root: Path, load: Load, settings: Settings, seconds: float) -> dict[str, Any]:
    """CPU by stage over real ZeroMQ, flat out. `front` is what one core could do of the first three stages alone."""
    import zmq

    from edge.bench.generator import sending
    from edge.ingest.source import ZmqSource
    from edge.network.endpoint import Endpoint

    address, context = f"ipc://{root}/stages{time.monotonic_ns():x}", zmq.Context()
    source = ZmqSource(context, [Endpoint.parse(f"pull+bind:{address}")], settings.max_queue)
    try:
        loop, watch = runtime(root, settings, source, inference=True), Stages()
        loop.engine.run = watch.timed(loop.engine.run)  # type: ignore[method-assign, assignment]
        with sending(load, f"push+connect:{address}", paced=False) as poses:
            poses.started()
            while loop.counts.windows < 2 * load.cameras * load.people:
                loop.step(0.1)
            people, windows, inferred = loop.ledger.people, loop.counts.windows, watch.inferred
            wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
            with watch.watching():
                while time.perf_counter() - wall < seconds:
                    loop.step(0.1)
            thread, process = time.thread_time() - thread, time.process_time() - process
            wall = time.perf_counter() - wall
            people, windows = loop.ledger.people - people, loop.counts.windows - windows
    finally:
        source.close()
        context.term()
    inferred = watch.inferred - inferred
    front = sum(watch.seconds[s] for s in ("receive", "decode", "window"))
    return {
        "person_frames": people,
        "windows": windows,
        "windows_s": windows / wall,
        "explaining_share": 1 - windows / inferred,
        "engine_us_a_window": watch.seconds["engine"] / inferred * 1e6,
        "cpu_person_frames_s": people / process,
        "cpu_us_a_person_frame": {s: watch.seconds[s] / people * 1e6 for s in STAGES},
        "io_thread_us_a_person_frame": (process - thread) / people * 1e6,
        "front_person_frames_s": people / front,
    }


def array_bytes(loop: Runtime) -> int:
    """Bytes per track in the windows and the judge: of all arrays with one row, or several, for each track."""
    n, found = loop.settings.max_tracks, 0
    for owner in (loop.windows, *loop.judge.columns):
        for value in vars(owner).values():
            if isinstance(value, np.ndarray) and len(value) and len(value) % n == 0:
                found += value.nbytes // n
    return found


def _tracks(root: Path, tracks: int, people: int, fps: float, seconds: float, pipe: Any) -> None:
    """Fill so many tracks, then measure CPU and bytes. Runs in a process of its own, to have memory of its own."""
    load = Load(cameras=tracks // people, people=people, fps=fps, passers=0, stay=1e9)
    bundle = open_bundle()
    given: dict[str, Any] = {"max_tracks": tracks + 64, "max_streams": max(256, load.cameras), "raise_after": 1000}
    settings = Settings(**given, metrics="off")
    source = Replay([])
    loop = runtime(root, settings, source, inference=False, bundle=bundle)
    traces = [Trace(load, k, 8.0) for k in range(min(4, load.cameras))]
    seen = [
        Camera(f"cam{c:05}", traces[c % len(traces)], start=37 * c, phase=c / load.cameras / fps)
        for c in range(load.cameras)
    ]
    at, step = 0.0, min(0.5, 4000 / load.messages)
    spare = recorded(seen, step)  # so that memory for the messages is not counted as the engine's
    before = resident()
    del spare
    for camera in seen:
        camera.sent = 0
    used, done = 0.0, 0
    # A window's length fills the ring, and half a second more touches every array.
    while at < bundle.manifest.seconds + 0.5 or used < seconds:
        messages = recorded(seen, step, at)
        source.messages, source.at = messages, 0
        people_before, start = loop.ledger.people, time.thread_time()
        while source.at < len(messages):
            loop.step(0)
        if at >= bundle.manifest.seconds + 0.5:
            used += time.thread_time() - start
            done += loop.ledger.people - people_before
        at += step
        del messages
        source.messages = []
    pipe.send(
        {
            "tracks": loop.windows.live,
            "us_a_person_frame": used / done * 1e6,
            "grown_mb": (resident() - before) / 1e6,
            "array_bytes_a_track": array_bytes(loop),
            "bound_bytes_a_track": bundle.manifest.frames * J * 16 + 1024,
        }
    )


def tracks(root: Path, counts: list[int], *, rounds: int = 3, people: int = 5, fps: float = 30.0) -> dict[str, Any]:
    """Cost of a person-frame without inference, and memory, by number of live tracks: medians of rounds in turns."""
    spawn = multiprocessing.get_context("spawn")
    rows: dict[int, list[dict[str, float]]] = {n: [] for n in counts}
    for k in range(rounds):
        for n in counts:
            if k and n > 1000:  # takes long, and one round has enough person-frames
                continue
            mine, theirs = spawn.Pipe()
            child = spawn.Process(target=_tracks, args=(root, n, people, fps, 0.4, theirs), daemon=True)
            child.start()
            theirs.close()
            rows[n].append(mine.recv())
            child.join()
    out = [{key: median(r[key] for r in found) for key in found[0]} for found in rows.values()]
    first, last = out[0], out[-1]
    more = max(1.0, last["tracks"] - first["tracks"])
    return {
        "rows": out,
        "growth": last["us_a_person_frame"] / first["us_a_person_frame"] - 1,
        "resident_bytes_a_track": (last["grown_mb"] - first["grown_mb"]) * 1e6 / more,
    }
