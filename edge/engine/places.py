"""What a pipeline allocates, once: a place for each batch under way, one for each support set, and their sizes.

Slot: a stream; staging, joints, visible, distance, embedding   × DEPTH, `buckets(…)[-1]` windows each
Bank: support features and mask   × 2, the room of the plan each; a run for every slot and size
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.engine import Staging
from edge.engine.device import Device, Event, Graph, Memory, Room, Run, Stream
from edge.skeleton import Float, J

DEPTH = 3
"""Of three batches one may be copied in, one computed and one copied out at a time."""


@dataclass(slots=True)
class Slot:
    """A place for one batch, on the host and on the device, and the stream that all of it is queued in."""

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
        """For batches of `size` windows at most, padded to the largest bucket."""
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
    """The run of one bucket, from one slot, against one bank; and its graph, once it was captured."""

    run: Run
    pointed: bool = False
    captured: bool = False
    graph: Graph | None = None


@dataclass(slots=True)
class Bank:
    """One of the two places for a support set, and the runs that read it, by (slot, bucket).

    `used[slot]` is when the last batch of that slot has read it: batches of several slots may read it at a time.
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
        """For as large a support set as there is room for."""
        n = room.categories[1] * room.shots[1]
        full = n * embedding
        memory, host = (d.allocate(4 * full), d.allocate(4 * n)), (d.pinned((full,)), d.pinned((n,)))
        return cls(*memory, *host, d.event(), tuple(d.event() for _ in range(DEPTH)), runs)


def buckets(least: int, most: int, step: int = 1) -> tuple[int, ...]:
    """The sizes that batches are padded to: powers of two from `least` on, and `most`, in multiples of `step`."""
    powers = {1 << i for i in range(most.bit_length()) if least <= 1 << i < most}
    return tuple(sorted({-(-n // step) * step for n in (least, *powers, max(least, most))}))


def whole(part: Float) -> Float:
    """The pinned array that a staging buffer is the beginning of."""
    base = part.base
    return base if isinstance(base, np.ndarray) and base.shape[1:] == part.shape[1:] else part


def memory_of(room: Room, frames: int, embedding: int, max_batch: int) -> int:
    """Bytes of device memory that a pipeline allocates, beside the program's own."""
    rows = buckets(room.batch[0], min(max_batch, room.batch[1]), room.step)[-1]
    per_slot = (rows * frames * J * 4, rows * room.categories[1], rows * embedding)
    per_bank = room.categories[1] * room.shots[1] * (embedding + 1)
    return 4 * DEPTH * sum(per_slot) + 4 * 2 * per_bank
