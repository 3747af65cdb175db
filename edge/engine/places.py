"""Allocates, once, all that a pipeline needs: a slot for each batch in flight and a bank for each support set.

Slot: a stream; staging, joints, visible, distance, embedding   × DEPTH, `buckets(…)[-1]` windows each
Bank: support features and mask   × 2, the most that the plan takes each; a run for every slot and bucket
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.engine import Staging
from edge.engine.device import Device, Event, Graph, Memory, Room, Run, Stream
from edge.skeleton import Float, J

DEPTH = 3
"""Three batches in flight: one may be copied in while one is computed and one copied out."""


@dataclass(slots=True)
class Slot:
    """The buffers of one batch, on the host and on the device, and the stream in which all its work is queued."""

    stream: Stream
    staging: Staging
    joints: Memory
    visible: Memory
    distance: Memory
    embedding: Memory
    host_distance: Float
    host_embedding: Float
    returned: Event

    @classmethod
    def on(cls, d: Device, stream: Stream, room: Room, size: int, frames: int, embedding: int) -> Slot:
        """Allocate a slot for batches of at most `size` windows, padded to the largest bucket."""
        rows, most = buckets(room.batch[0], size, room.step)[-1], room.categories[1]
        joints, visible = d.pinned((rows, frames, J, 3)), d.pinned((rows, frames, J))
        return cls(
            stream,
            Staging(joints[:size], visible[:size]),
            d.allocate(joints.nbytes),
            d.allocate(visible.nbytes),
            d.allocate(4 * rows * most),
            d.allocate(4 * rows * embedding),
            d.pinned((rows * most,)),
            d.pinned((rows, embedding)),
            d.event(),
        )


@dataclass(slots=True)
class Prepared:
    """The run of one bucket, in one slot, against one bank; and its CUDA graph, once captured."""

    run: Run
    pointed: bool = False
    captured: bool = False
    graph: Graph | None = None


@dataclass(slots=True)
class Bank:
    """The buffers of one of the two support sets, and the runs that read it, by (slot, bucket).

    `used[slot]` happens when that slot's last batch has read it: batches of several slots may read it at a time.
    """

    features: Memory
    mask: Memory
    host_features: Float
    host_mask: Float
    written: Event
    used: tuple[Event, ...]
    runs: dict[tuple[int, int], Prepared]
    shape: tuple[int, int] = (0, 0)

    @classmethod
    def on(cls, d: Device, room: Room, embedding: int, runs: dict[tuple[int, int], Prepared]) -> Bank:
        """Allocate a bank for the largest support set that the plan takes."""
        n = room.categories[1] * room.shots[1]
        full = n * embedding
        memory, host = (d.allocate(4 * full), d.allocate(4 * n)), (d.pinned((full,)), d.pinned((n,)))
        return cls(*memory, *host, d.event(), tuple(d.event() for _ in range(DEPTH)), runs)


def buckets(least: int, most: int, step: int = 1) -> tuple[int, ...]:
    """The sizes that batches are padded to: `least`, powers of two, and `most`, rounded up to multiples of `step`."""
    powers = {1 << i for i in range(most.bit_length()) if least <= 1 << i < most}
    return tuple(sorted({-(-n // step) * step for n in (least, *powers, max(least, most))}))


def backing_array(part: Float) -> Float:
    """The pinned array that a staging buffer is the first part of."""
    base = part.base
    return base if isinstance(base, np.ndarray) and base.shape[1:] == part.shape[1:] else part


def memory_of(room: Room, frames: int, embedding: int, max_batch: int) -> int:
    """Bytes of device memory that a pipeline allocates, besides the program's own."""
    rows = buckets(room.batch[0], min(max_batch, room.batch[1]), room.step)[-1]
    per_slot = (rows * frames * J * 4, rows * room.categories[1], rows * embedding)
    per_bank = room.categories[1] * room.shots[1] * (embedding + 1)
    return 4 * DEPTH * sum(per_slot) + 4 * 2 * per_bank
