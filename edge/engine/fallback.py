"""Combines engines in order of preference: when a device is lost, the next takes over its unfinished batches.

    batch ─► engine 1 ─ lost ─► engine 2 runs the same staging again ─► result

No batch is lost by this: its windows are still in the staging buffers on the host, which outlive the device. The caller
goes on filling the same buffer as before.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

from edge.bundle import GRAPH, Bundle, locked, open_bundle
from edge.engine import Engine, Staging, open_engine
from edge.engine.machine import this_machine
from edge.engine.plans import fitting, missing
from edge.engine.record import plan_names
from edge.errors import EngineError, HaadError, NoPlan, command
from edge.skeleton import Float

Support = tuple[Float, Float] | None
Tell = Callable[[EngineError, str], None]
"""Called with the error of an engine that cannot be used or was lost, and the name of the next one, '' if none."""


class Fallback:
    """See `Engine`. `engines` are open and take the same windows; the first is used until its device is lost.

    After a loss the next engine computes at once the batches in flight and the buffer that was being filled. From then
    on it is used as it would be alone.
    """

    def __init__(self, engines: Sequence[Engine], tell: Tell = lambda e, name: None, fallbacks: int = 0) -> None:
        self._engine, self._rest = engines[0], deque(engines[1:])
        self.tell, self.fallbacks = tell, fallbacks
        self._kept: Staging | None = None
        self._handed_in = False
        self._bound: Support = None
        self._under: deque[tuple[Staging, int, Support]] = deque()
        self._done: deque[Float] = deque()

    @property
    def name(self) -> str:
        """See `Engine.name`."""
        return self._engine.name

    @property
    def staging(self) -> Staging:
        """See `Engine.staging`."""
        return self._kept or self._engine.staging

    @property
    def full(self) -> bool:
        """See `Engine.full`."""
        return bool(self._under) and (self._kept is not None or self._engine.full)

    @property
    def ready(self) -> bool:
        """See `Engine.ready`. False if the engine was lost and there is no other."""
        return bool(self._under) and (self._kept is not None or self._engine.ready)

    @property
    def pending(self) -> int:
        """See `Engine.pending`."""
        return len(self._under)

    @property
    def categories(self) -> int | None:
        """See `Engine.categories`."""
        return self._engine.categories

    def admit(self, support: Float) -> None:
        """See `Engine.admit`."""
        self._engine.admit(support)

    def bind(self, support: Float, mask: Float) -> None:
        """See `Engine.bind`."""
        try:
            self._engine.bind(support, mask)
        except EngineError as e:
            self._take_over(e)
            self._engine.bind(support, mask)
        self._bound = support, mask

    def run(self, n: int) -> tuple[Float, Float]:
        """See `Engine.run`."""
        if self._kept is None:
            try:
                return self._engine.run(n)
            except EngineError as e:
                self._take_over(e)
        return self._again(self.staging, n, self._bound)

    def submit(self, n: int) -> None:
        """See `Engine.submit`."""
        self._under.append((self.staging, n, self._bound))
        try:
            if self._kept is None:
                try:
                    self._engine.submit(n)
                    return
                except EngineError as e:
                    self._take_over(e)
            self._catch_up()
            self._handed_in = True
        except BaseException:
            if self._under:
                self._under.pop()
            raise

    def collect(self) -> Float:
        """See `Engine.collect`."""
        if not self._under:
            raise IndexError("nothing was submitted")
        if self._kept is None:
            try:
                result = self._engine.collect()
                self._under.popleft()
                return result
            except EngineError as e:
                try:
                    self._take_over(e)
                except EngineError:
                    self._under.clear()
                    raise
        try:
            self._catch_up()
        except EngineError:
            if not self._done:  # the next call would fail too: nobody must wait for ever until nothing is pending
                self._under.clear()
                self._hand_back()
                raise
        self._under.popleft()
        result = self._done.popleft()
        self._hand_back()
        return result

    def close(self) -> None:
        """See `Engine.close`."""
        for engine in (self._engine, *self._rest):
            engine.close()

    # ---- inside ------------------------------------------------------------------------------------------------

    def _take_over(self, e: EngineError) -> None:
        """Switch to the next engine, if the error means that this one is lost and there is another. Else raise e."""
        if not e.lost or not self._rest:
            raise e
        staging = self.staging
        self.tell(e, self._rest[0].name)
        self._engine.close()
        self._engine, self._kept, self._handed_in = self._rest.popleft(), staging, False
        self.fallbacks += 1
        if self._bound:
            self._engine.bind(*self._bound)

    def _hand_back(self) -> None:
        """Stop keeping the old buffer, once it is not being filled and no batch in it is still to be computed."""
        if self._handed_in and not self._under:
            self._kept, self._handed_in = None, False

    def _catch_up(self) -> None:
        """Compute every batch in flight that has no result yet, with the support set it was submitted with."""
        for staging, n, bound in list(self._under)[len(self._done) :]:
            self._done.append(self._again(staging, n, bound)[1])

    def _again(self, staging: Staging, n: int, bound: Support) -> tuple[Float, Float]:
        own = self._engine.staging
        own.joints[:n], own.visible[:n] = staging.joints[:n], staging.visible[:n]
        try:
            if bound is self._bound or bound is None or self._bound is None:
                return self._engine.run(n)
            self._engine.bind(*bound)
            try:
                return self._engine.run(n)
            finally:
                self._engine.bind(*self._bound)
        except EngineError as e:
            self._take_over(e)
            return self._again(staging, n, bound)


_LIBC = ctypes.CDLL(None)
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)


def _with_its_parent(parent: int) -> None:
    """In a child process: make it end when its parent ends, for whatever reason."""
    _LIBC.prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(1)


def build_plan(bundle: Bundle) -> Bundle:
    """Build the plan for this machine, in a process of its own, with the command that a person would type.

    One process builds at a time. If another one has built a plan for this machine meanwhile, that is used.
    Raises EngineError.
    """
    with locked(bundle.root / GRAPH):  # not the folder, which the builder locks while it writes
        now = open_bundle(bundle.root)
        if now.manifest.files != bundle.manifest.files and fitting(now, this_machine())[0]:
            return now
        words = missing(now, this_machine())
        done = subprocess.run(
            [sys.executable, "-m", "edge", *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            preexec_fn=functools.partial(_with_its_parent, os.getpid()),
        )
    if done.returncode:
        # Libraries write there as well: ONNX Runtime about CPUs that it does not know, for one.
        error = re.search(r"^error: .*", done.stderr, re.MULTILINE | re.DOTALL)
        said, _, then = " ".join((error[0] if error else done.stderr).split()).partition(" next: ")
        said = said.removeprefix("error: ").replace(" why: ", ": ", 1)[-400:]
        raise EngineError(
            "no plan could be built for this machine",
            why=said if said and done.returncode > 0 else _ended(done.returncode),
            fix=then or command(*words),
        )
    return open_bundle(bundle.root)


def _ended(code: int) -> str:
    if code >= 0:
        return f"the builder ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"the builder was ended by {name}" + (", usually because memory ran out" if -code == signal.SIGKILL else "")


def in_order(names: Sequence[str], bundle: Bundle, build_missing: bool = False) -> tuple[str, ...]:
    """The names of the engines to open. For `auto`, TensorRT comes first if the bundle has a plan or is to get one."""
    if tuple(names) != ("auto",):
        return tuple(names)
    return ("tensorrt", "onnx") if build_missing or plan_names(bundle) else ("onnx",)


def open_first(
    bundle: Bundle,
    names: Sequence[str],
    *,
    max_batch: int = 64,
    threads: int = 1,
    build_missing: bool = False,
    tell: Tell = lambda e, name: None,
    say: Callable[[str], None] = lambda text: None,
    opener: Callable[..., Engine] = open_engine,
    build: Callable[[Bundle], Bundle] = build_plan,
) -> Fallback:
    """Open every engine that can be opened, in order. Raises the last EngineError if none can.

    All are opened now, so that an engine that takes over at night is known to work. `tell` is called for each that
    cannot be opened; `say` before a plan is built, which takes minutes.
    """
    engines: list[Engine] = []
    passed: list[EngineError] = []
    for name in names:
        size = engines[0].staging.size if engines else max_batch
        try:
            try:
                engines.append(opener(bundle, name, max_batch=size, threads=threads))
            except NoPlan as e:  # a new plan would not help with any other error
                if not build_missing:
                    raise
                say(f"building a plan for this machine, which takes minutes: {e.what}: {e.why}")
                bundle = build(bundle)
                engines.append(opener(bundle, name, max_batch=size, threads=threads))
        except HaadError as e:
            error = e if isinstance(e, EngineError) else EngineError(e.what, why=e.why, fix=e.fix)
            passed.append(error)
    for error in passed if engines else passed[:-1]:
        tell(error, engines[0].name if engines else "")
    if not engines:
        raise passed[-1]
    return Fallback(engines, tell, fallbacks=len(passed))
