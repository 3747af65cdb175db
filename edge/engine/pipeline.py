"""Runs up to three batches at a time on any accelerator, each being copied in, computed or copied out.

    staging 0 ─copy in─► joints, visible ─ program ─► distance ─copy out─► pinned 0
    staging 1 ─copy in─► joints, visible ─ program ─► distance ─copy out─► pinned 1
    staging 2 ─copy in─► joints, visible ─ program ─► distance ─copy out─► pinned 2
                                              ▲
                            support A │ support B: one is read, the other is written

Each slot has a stream of its own. Batches of different slots may overlap in every way, since two computed at the same
time fill a GPU better than one. Support sets are written on another stream. Events order the two: a batch waits until
its support is written, and writing waits until no batch reads what was there. `places.py` allocates the memory. A
`Program` computes on a `Device`: `edge/engine/tensorrt.py` and `cuda.py` have the real ones, and the tests a device
that runs everything as late and as badly ordered as it may.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.engine import Staging
from edge.engine.device import Device, Program, Room
from edge.engine.places import DEPTH, Bank, Prepared, Slot, backing_array, buckets
from edge.errors import EngineError
from edge.skeleton import Float, J


def abandon(*lost: object) -> None:
    """Never destroy these objects: after a loss that would call into a driver that may crash."""
    for thing in lost:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch in flight: its slot, its number of windows, and the number of categories."""

    slot: int
    n: int
    categories: int


class Pipeline:
    """Fill `staging`, `submit`, go on filling; `collect` the oldest result when `full`, or when it is needed.

    The pipeline owns the device and the program: if its construction fails, both are closed, or abandoned if lost. Use
    it in one thread. After a loss every call raises EngineError with `lost`, and the device is not touched.
    """

    def __init__(
        self,
        device: Device,
        program: Program,
        room: Room,
        frames: int,
        embedding: int,
        *,
        max_batch: int,
        name: str = "",
        anew: str = "haad-edge build BUNDLE --target tensorrt",
        graphs: bool = True,
        warm: bool = False,
    ) -> None:
        self.name, self._anew, self.fallbacks = name, anew, 0
        self.room, self.depth, self._size_of_row = room, DEPTH, embedding
        self._cold = warm
        self._device, self._program = device, program
        size = min(max_batch, room.batch[1])
        self.buckets = buckets(room.batch[0], size, room.step)
        self._pending: deque[Pending] = deque()
        self._lost: EngineError | None = None
        self._filling = self._current = 0
        self._banks: list[Bank] = []
        try:
            self._prepare(size, frames, graphs)
        except EngineError:
            self.close()
            raise

    def _prepare(self, size: int, frames: int, graphs: bool) -> None:
        """Allocate all that is ever needed, and write a support set of zeros."""
        device, program, room, embedding = self._device, self._program, self.room, self._size_of_row
        with self._using():
            keys = [(slot, bucket) for slot in range(DEPTH) for bucket in self.buckets]
            self._banks = [
                Bank.on(device, room, embedding, {key: Prepared(program.new_run(key[0])) for key in keys})
                for _ in range(2)
            ]
            runs = {id(p.run) for bank in self._banks for p in bank.runs.values()}
            self._one_run = len(runs) == 1
            self._capturing = graphs and not self._one_run
            self._loading = device.stream()
            # A single run has a single scratch memory: then everything is queued in one stream, and nothing overlaps.
            streams = [device.stream()] * DEPTH if self._one_run else [device.stream() for _ in range(DEPTH)]
            self._slots = [Slot.on(device, stream, room, size, frames, embedding) for stream in streams]
            for slot in self._slots:  # a short batch computes its unused rows too: they must be numbers
                device.copy_in(slot.joints, backing_array(slot.staging.joints), slot.stream)
                device.copy_in(slot.visible, backing_array(slot.staging.visible), slot.stream)
                device.record(slot.returned, slot.stream)
                device.synchronize(slot.returned)
        g, k = room.categories[0], room.shots[0]  # so that embeddings can be computed before there is a support set
        self._write(np.zeros((g, k, embedding), np.float32), np.ones((g, k), np.float32))

    @property
    def staging(self) -> Staging:
        """The buffer to fill now. After `submit` it is another one."""
        return self._slots[self._filling].staging

    @property
    def pending(self) -> int:
        """How many batches are in flight."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether a result must be collected before `staging` may be filled."""
        return self.pending == self.depth

    @property
    def ready(self) -> bool:
        """Whether `collect` would not wait. True after a loss: `collect` then raises at once."""
        if not self._pending:
            return False
        try:
            with self._using():
                return self._device.done(self._slots[self._pending[0].slot].returned)
        except EngineError:
            return True

    @property
    def categories(self) -> int | None:
        """See `Engine.categories`."""
        return self.room.categories[1]

    def admit(self, support: Float) -> None:
        """Raises EngineError if the program has no room for support (G, K, D)."""
        asked, room = support.shape[:2], (self.room.categories, self.room.shots)
        for what, n, (least, most) in zip(("categories", "windows in a category"), asked, room, strict=True):
            if not least <= n <= most:
                wider = [(min(a, n), max(b, n)) for n, (a, b) in zip(asked, room, strict=True)]
                ranges = (f"{a}:{min(max(a, usual), b)}:{b}" for usual, (a, b) in zip((8, 64), wider, strict=True))
                raise EngineError(
                    f"the support set has {n} {what}",
                    why=f"the plan was built for {least} to {most}",
                    fix=f"{self._anew} --support {'x'.join(ranges)}",
                )

    def bind(self, support: Float, mask: Float) -> None:
        """Write support (G, K, D) and mask (G, K) where no batch in flight reads, and use them from the next batch on.

        Refuses what `admit` refuses, and then keeps the old support set.
        """
        self.admit(support)
        g, k, d = support.shape
        if d != self._size_of_row or mask.shape != (g, k):
            raise ValueError(f"support {support.shape}, mask {mask.shape}")
        self._write(support, mask)
        if self._cold and not self._pending:
            self._cold = False
            self.warm()

    def _write(self, support: Float, mask: Float) -> None:
        g, k, d = support.shape
        other = 1 - self._current
        bank, device = self._banks[other], self._device
        with self._using():
            if bank.shape != (0, 0):
                device.synchronize(bank.written)  # the last copy from its host buffers is done
                for event in bank.used:
                    device.wait(self._loading, event)
            host, host_mask = bank.host_features[: g * k * d], bank.host_mask[: g * k]
            host[:], host_mask[:] = support.reshape(-1), mask.reshape(-1)
            device.copy_in(bank.features, host, self._loading)
            device.copy_in(bank.mask, host_mask, self._loading)
            device.record(bank.written, self._loading)
            if bank.shape != (g, k):
                self._forget(bank)
            bank.shape = (g, k)
        self._current = other

    def submit(self, n: int) -> None:
        """Start computing the first `n` windows of `staging`. Raises EngineError if the device is lost."""
        self._pending.append(self._start(self._filling, n))
        self._filling = (self._filling + 1) % self.depth

    def collect(self) -> Float:
        """distance (n, G) of the oldest batch in flight."""
        result = self._finish(self._pending[0])
        self._pending.popleft()
        return result

    def run(self, n: int) -> tuple[Float, Float]:
        """embedding (n, D) and distance (n, G) of the first `n` windows of `staging`, which stays the same buffer."""
        distance = self._finish(self._start(self._filling, n, embeddings=True))
        return self._slots[self._filling].host_embedding[:n].copy(), distance

    def warm(self) -> None:
        """Run every bucket in every slot, so that the first real batch finds its graph captured."""
        for slot in range(self.depth):
            for n in self.buckets:
                self._finish(self._start(slot, min(n, self.staging.size)))

    def close(self) -> None:
        """Release everything; staging stays readable. After a loss nothing can be released: the driver does that."""
        if not self._lost:
            with contextlib.suppress(EngineError):  # the device may get lost just now
                while self._pending:  # the program may not be running when it is closed
                    self.collect()
                with self._using():
                    for bank in self._banks:
                        self._forget(bank)
                    self._banks.clear()
                    self._program.close()
                    self._device.close()
        if self._lost:
            abandon(self._program, self._device)

    # ---- inside ------------------------------------------------------------------------------------------------

    def _start(self, index: int, n: int, *, embeddings: bool = False) -> Pending:
        self._alive()
        if any(p.slot == index for p in self._pending):
            raise RuntimeError("collect a result before this buffer is used again")
        slot, device = self._slots[index], self._device
        bank = self._banks[self._current]
        if not 1 <= n <= slot.staging.size:
            raise ValueError(f"{n} windows of at most {slot.staging.size}")
        bucket = next(b for b in self.buckets if b >= n)
        with self._using():
            device.copy_in(slot.joints, slot.staging.joints[:n], slot.stream)
            device.copy_in(slot.visible, slot.staging.visible[:n], slot.stream)
            device.wait(slot.stream, bank.written)
            prepared = bank.runs[index, bucket]
            if prepared.graph is not None:
                device.replay(prepared.graph, slot.stream)
            else:
                self._point(prepared, index, bucket)
                prepared.run.enqueue(slot.stream)
            device.record(bank.used[index], slot.stream)
            g = bank.shape[0]
            device.copy_out(slot.host_distance[: n * g], slot.distance, slot.stream)
            if embeddings:
                device.copy_out(slot.host_embedding[:n], slot.embedding, slot.stream)
            device.record(slot.returned, slot.stream)
            if self._capturing and not prepared.captured:
                # After a change of shape the first run must not be captured. This was it.
                prepared.captured = True
                prepared.graph = device.capture(slot.stream, lambda: prepared.run.enqueue(slot.stream))
        return Pending(index, n, g)

    def _finish(self, p: Pending) -> Float:
        slot = self._slots[p.slot]
        with self._using():
            self._device.synchronize(slot.returned)
        distance: Float = slot.host_distance[: p.n * p.categories].reshape(p.n, p.categories).copy()
        return distance

    def _point(self, prepared: Prepared, index: int, bucket: int) -> None:
        """Set a run's shapes and addresses for the current support set, unless they are set already."""
        if prepared.pointed and not self._one_run:
            return
        slot, bank = self._slots[index], self._banks[self._current]
        frames = slot.staging.joints.shape[1]
        prepared.run.point(
            {
                "joints": (bucket, frames, J, 3),
                "visible": (bucket, frames, J),
                "support": (*bank.shape, self._size_of_row),
                "support_mask": bank.shape,
            },
            {
                "joints": slot.joints.address,
                "visible": slot.visible.address,
                "support": bank.features.address,
                "support_mask": bank.mask.address,
                "embedding": slot.embedding.address,
                "distance": slot.distance.address,
            },
        )
        prepared.pointed = True

    def _forget(self, bank: Bank) -> None:
        """Drop a bank's graphs, which are bound to the shapes they were captured with."""
        for prepared in bank.runs.values():
            if prepared.graph is not None:
                self._device.forget(prepared.graph)
            prepared.graph, prepared.pointed, prepared.captured = None, False, False

    def _alive(self) -> None:
        if e := self._lost:
            raise EngineError(e.what, why=e.why, fix=e.fix, lost=True)

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """Use the device inside the block. Raises EngineError if it is lost; remembers if it gets lost."""
        self._alive()
        try:
            yield
        except EngineError as e:
            self._lost = e if e.lost else None
            raise
