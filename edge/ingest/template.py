"""Decodes many similar messages at a time, by comparing them with an example that was decoded before.

    bodies of equal length ─► (n, bytes) ─ all but the values equal to an example's? ─► seq, t, ids, joints, visible

A publisher sends the same kind of message thirty times a second. msgpack encodes the type and length of every value, so
two bodies that differ only in the bytes of their numbers and blobs have them in the same places. An example is a body
that `edge.wire` has read and accepted; one that holds anything but plain numbers where they are expected cannot be one.
Bodies that match no example, or have invalid values, are left to `edge.wire`, which reports what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge.skeleton import Float
from edge.wire import CONFIDENT, COUNT_LIMIT, FLOAT32, PoseFrame

FEW = 4
"""Fewer bodies than this are read one by one, which is cheaper."""
KNOWN, ALIKE = 256, 8
"""Templates that are kept in all, and of one length."""
FREE, PAYS = 64, 16
"""After the first FREE templates a new one is made only for every PAYS messages read by templates, so that a publisher
whose messages never match costs nothing."""
FIXED_BYTES = 1024
"""A body with more bytes than this outside its blobs is not worth a template."""

Bytes = NDArray[np.uint8]
_INTS = {0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
_BLOBS = {0xC4: 1, 0xC5: 2, 0xC6: 4}


@dataclass(frozen=True, slots=True)
class Ints:
    """`count` consecutive integers of one type: `at` is the place of the first one's type byte, `kind` the numpy type.

    With `kind` '' they are small integers, each of which is its own type byte.
    """

    at: int
    count: int
    kind: str

    def read(self, raw: Bytes) -> NDArray[np.int64] | NDArray[np.uint64]:
        """Read the integers of bodies: raw (n, bytes) → (n, count)."""
        if not self.kind:
            return raw[:, self.at : self.at + self.count].astype(np.int64)
        dtype = np.dtype(self.kind)
        whole = raw[:, self.at : self.at + self.count * (1 + dtype.itemsize)].reshape(len(raw), self.count, -1)
        values = np.ascontiguousarray(whole[:, :, 1:]).view(dtype)[:, :, 0]
        return values.astype(np.uint64 if self.kind == ">u8" else np.int64)


@dataclass(frozen=True, slots=True)
class Many:
    """The values of n messages that match one template.

    seq (n,), t (n,) in ns, ids (n, P), joints (n·P, J, C), visible (n·P, J) or None. `like` is the example's frame.
    """

    like: PoseFrame
    seq: NDArray[np.int64]
    t: NDArray[np.int64]
    ids: NDArray[np.int64]
    joints: Float
    visible: Float | None


class Template:
    """Where an example's values are in its body; `like` is the frame that `edge.wire` read from it."""

    def __init__(self, body: bytes, like: PoseFrame) -> None:
        """Raises ValueError when the body is not plain enough to be an example."""
        fields = dict(_fields(body))
        people = len(like.ids)
        self.like = like
        self._seq, self._t = _ints(body, *fields["seq"]), _ints(body, *fields["t"])
        self._ids = _ints(body, *_inside(body, *fields["ids"])) if people else []
        self._joints = _blob(body, *fields["joints"])
        self._visible = None if like.visible is None else _blob(body, *fields["visible"])
        if sum(run.count for run in self._ids) != people or not like.stamped:
            raise ValueError("not plain")
        mask = np.full(len(body), 0xFF, np.uint8)
        for run in (*self._seq, *self._t, *self._ids):
            size = 1 + np.dtype(run.kind).itemsize if run.kind else 1
            part = mask[run.at : run.at + run.count * size].reshape(run.count, size)
            part[:, 1:] = 0
            if not run.kind:
                part[:] = 0x80
        blobs = sorted(b for b in (self._joints, self._visible) if b is not None)
        edges = [0, *(e for b in blobs for e in b), len(body)]
        self._fixed = [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
        example = np.frombuffer(body, np.uint8)
        self._mask = np.concatenate([mask[s] for s in self._fixed])
        self._want = np.concatenate([example[s] for s in self._fixed]) & self._mask
        if len(self._want) > FIXED_BYTES:
            raise ValueError("long")

    def matches(self, raw: Bytes) -> NDArray[np.bool_]:
        """Which of the bodies (n, bytes) equal the example in everything but values."""
        fixed = np.concatenate([raw[:, s] for s in self._fixed], 1)
        fixed &= self._mask
        return np.asarray((fixed == self._want).all(1))

    def read(self, raw: Bytes) -> tuple[Many, NDArray[np.bool_]]:
        """The values of bodies that match, and which of the bodies hold no value that `edge.wire` would refuse."""
        seq, t = (run.read(raw)[:, 0] for run in (self._seq[0], self._t[0]))
        ids = [run.read(raw) for run in self._ids]
        good = (seq >= 0) & (seq < COUNT_LIMIT) & (t >= 0) & (t < COUNT_LIMIT)
        for part in ids:
            if part.dtype == np.uint64:
                good &= (part < 1 << 63).all(1)
        who = np.concatenate(ids, 1, dtype=np.int64, casting="unsafe") if ids else np.zeros((len(raw), 0), np.int64)
        if who.shape[1] > 1:
            ordered = np.sort(who, 1)
            good &= (ordered[:, 1:] != ordered[:, :-1]).all(1)
        _, size, c = self.like.joints.shape
        joints = _floats(raw, self._joints).reshape(-1, size, c)
        visible = None if self._visible is None else _floats(raw, self._visible).reshape(-1, size)
        if visible is not None:
            good &= ~(visible > CONFIDENT).reshape(len(raw), -1).any(1)
        return Many(self.like, seq.astype(np.int64), t.astype(np.int64), who, joints, visible), good


class Templates:
    """The templates made so far, by the length of their bodies."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[Template]] = {}
        self._made = self._matched = self._kept = 0

    def read(self, bodies: list[bytes]) -> Iterator[tuple[NDArray[np.intp], Many]]:
        """Read the bodies, all of one length, that match a template: yields their indices and values, skips others."""
        known = self._by_length.get(len(bodies[0]))
        if not known or len(bodies) < FEW:
            return
        raw = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
        left = np.arange(len(bodies))
        for template in known:
            like = template.matches(raw)
            if not like.any():
                continue
            at, some = (left, raw) if like.all() else (left[like], raw[like])
            many, good = template.read(some)
            if good.all():
                self._matched += len(at)
                yield at, many
            elif good.any():
                many, _ = template.read(some[good])
                self._matched += len(many.seq)
                yield at[good], many
            if len(at) == len(left):
                return
            left, raw = left[~like], raw[~like]

    def learn(self, body: bytes, frame: PoseFrame) -> bool:
        """Make a template of a body that was read as `frame`; returns whether there is a new one."""
        if self._made > FREE + self._matched // PAYS:
            return False
        self._made += 1
        try:
            template = Template(body, frame)
        except (ValueError, KeyError, IndexError):
            return False
        known = self._by_length.pop(len(body), [])
        known.insert(0, template)
        self._kept += 1
        if len(known) > ALIKE:
            known.pop()
            self._kept -= 1
        self._by_length[len(body)] = known  # moved to the end: lengths that learned least recently are dropped first
        while self._kept > KNOWN:
            self._kept -= len(self._by_length.pop(next(iter(self._by_length))))
        return True


def _floats(raw: Bytes, part: tuple[int, int]) -> Float:
    """A blob of each body as (n, floats); a copy, so that the numbers are aligned."""
    return np.ascontiguousarray(raw[:, part[0] : part[1]]).view(FLOAT32)


def _fields(body: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """The map's keys, and where each one's value begins and ends. Raises ValueError for anything unusual."""
    if body[0] >> 4 != 0x8:
        raise ValueError("not a small map")
    at = 1
    for _ in range(body[0] & 15):
        if body[at] >> 5 != 0b101:
            raise ValueError("not a short key")
        end = at + 1 + (body[at] & 31)
        name, at = body[at + 1 : end].decode(), _skip(body, end)
        yield name, (end, at)


def _skip(body: bytes, at: int) -> int:
    """Where the value that begins at `at` ends."""
    b = body[at]
    if b < 0x80 or b >= 0xE0 or b in (0xC0, 0xC2, 0xC3):  # small integers, nil, booleans
        return at + 1
    if b >> 5 == 0b101:  # a short text
        return at + 1 + (b & 31)
    if b in _INTS:
        return at + 1 + np.dtype(_INTS[b]).itemsize
    if b in (0xCA, 0xCB):  # floats
        return at + (5 if b == 0xCA else 9)
    if b in _BLOBS:
        width = _BLOBS[b]
        return at + 1 + width + int.from_bytes(body[at + 1 : at + 1 + width], "big")
    if b >> 4 == 0x9 or b == 0xDC:  # a list whose values are not lists themselves
        count, at = (b & 15, at + 1) if b != 0xDC else (int.from_bytes(body[at + 1 : at + 3], "big"), at + 3)
        for _ in range(count):
            if body[at] >> 4 == 0x9 or body[at] == 0xDC:
                raise ValueError("lists of lists")
            at = _skip(body, at)
        return at
    raise ValueError("not plain")


def _inside(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Where a list's values begin and end, given where the list does."""
    return at + (3 if body[at] == 0xDC else 1), end


def _ints(body: bytes, at: int, end: int) -> list[Ints]:
    """Consecutive integers as runs of one type each. Raises ValueError for anything else."""
    runs: list[Ints] = []
    starts = [at]
    while starts[-1] < end:
        starts.append(_skip(body, starts[-1]))
    for at, _ in pairwise(starts):
        b = body[at]
        if b >= 0x80 and b not in _INTS:
            raise ValueError("not a plain integer")
        kind = _INTS.get(b, "")
        if runs and runs[-1].kind == kind:
            runs[-1] = Ints(runs[-1].at, runs[-1].count + 1, kind)
        else:
            runs.append(Ints(at, 1, kind))
    return runs


def _blob(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Where a blob's bytes are."""
    if body[at] not in _BLOBS:
        raise ValueError("not a blob")
    return at + 1 + _BLOBS[body[at]], end
