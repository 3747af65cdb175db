"""Decodes the messages of one drain of the sockets into arrays over all their people.

    messages ─┬─ alike ──► Templates: many at a time ─┬─► people of one layout and size ──► joints (P, 15, 3)
              └─ others ─► pose_of: one by one ───────┘    mapped onto core15 at once       visible (P, 15)

A numpy call costs a microsecond, however many people it handles, so every step is done once for all that came together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.errors import WireError
from edge.ingest.mapping import core15
from edge.ingest.template import FEW, Many, Templates
from edge.skeleton import Float, J
from edge.wire import Form, Limits, PoseFrame, pose_of, split, stream_of

NAMES = 4096
"""Topics whose stream names are cached: a camera's topic comes thirty times a second."""
Kind = tuple[str, int, bool, tuple[float, float] | None]
"""Layout, coordinates a joint, whether confidences are missing, image size: people of one kind are mapped together."""


@dataclass(slots=True)
class Drain:
    """F accepted messages in order of arrival, as columns, and their P people in the same order.

    stream, seq, t (ns) and ids are lists of F; each `ids` is the bytes of (n,) int64. `people` (F,) counts each frame's
    people, `first` is the index of its first one. `message` is each frame's index among the drained messages, `ends`
    the frames that end their streams. `form` is the form of a frame's poses, None where it has none. joints (P, 15, 3),
    visible (P, 15). `bad` counts, by frame, the joints claimed visible at impossible coordinates.
    """

    stream: list[str]
    seq: list[int]
    t: list[int]
    ids: list[bytes]
    people: NDArray[np.int64]
    first: list[int]
    message: list[int]
    form: list[Form | None]
    joints: Float
    visible: Float
    ends: set[int] = field(default_factory=set)
    bad: dict[int, int] = field(default_factory=dict)
    unstamped: int = 0

    def __len__(self) -> int:
        return len(self.stream)


@dataclass(slots=True)
class _Part:
    """n messages that were decoded together: their indices in the drain, and `people` people each."""

    places: NDArray[np.intp]
    people: int
    joints: Float
    visible: Float | None


class Decoder:
    """Decodes drains.

    `refused` is called with the error of each message that is not a valid pose; `wall` (ns) dates those without a time.
    """

    def __init__(
        self,
        limits: Limits,
        min_confidence: float,
        refused: Callable[[WireError], None],
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._limits, self._min_confidence, self._refused, self._wall = limits, min_confidence, refused, wall
        self._templates = Templates()
        self._names: dict[bytes, str] = {}

    def __call__(self, messages: Sequence[Sequence[bytes]]) -> Drain:
        """Decode messages, each a list of parts; refused ones are left out."""
        work = _Work(len(messages))
        groups: dict[int, list[int]] = {}
        names, streams, bodies = self._names, work.stream, work.body
        for i, parts in enumerate(messages):
            topic, _, body = parts[0].partition(b"\0")
            name = names.get(topic)
            if name is None or not body or len(parts) > 1:
                try:
                    topic, body = split(parts)
                    name = stream_of(topic, self._limits)
                except WireError as e:
                    self._refused(e)
                    continue
                if len(names) >= NAMES:
                    names.clear()
                names[topic] = name
            streams[i], bodies[i] = name, body
            group = groups.get(len(body))
            if group is None:
                groups[len(body)] = [i]
            else:
                group.append(i)
        for places in groups.values():
            if len(places) < FEW:
                for i in places:
                    self._alone(work, i)
            else:
                self._together(work, places)
        return work.drain(self._min_confidence)

    def _together(self, work: _Work, places: list[int]) -> None:
        """Decode bodies of one length: by templates where one matches; a body that none matches may become the next."""
        while places:
            left = np.array(places)
            unread = np.ones(len(places), bool)
            for at, many in self._templates.read([work.body[i] for i in places]):
                work.add_many(left[at], many)
                unread[at] = False
            places = left[unread].tolist()
            while places:
                i = places.pop(0)
                frame = self._alone(work, i)
                if frame is not None and len(places) >= FEW and self._templates.learn(work.body[i], frame):
                    break

    def _alone(self, work: _Work, i: int) -> PoseFrame | None:
        try:
            frame = pose_of(work.stream[i], work.body[i], self._limits, self._wall)
        except WireError as e:
            self._refused(e)
            return None
        work.add(i, frame)
        return frame


class _Work:
    """A drain while it is being decoded; a message that was not accepted has no `ids`."""

    def __init__(self, n: int) -> None:
        self.stream, self.body = [""] * n, [b""] * n
        self._ids: list[bytes | None] = [None] * n
        self._seq, self._t, self._people = (np.zeros(n, np.int64) for _ in range(3))
        self._form: list[Form | None] = [None] * n
        self._ends: set[int] = set()
        self._unstamped = 0
        self._kinds: dict[Kind, tuple[PoseFrame, list[_Part]]] = {}

    def add(self, i: int, f: PoseFrame) -> None:
        """Add message `i`, decoded on its own."""
        self._seq[i], self._t[i], self._people[i], self._ids[i] = f.seq, f.t, len(f.ids), f.ids.tobytes()
        self._form[i] = f.form
        self._unstamped += not f.stamped
        if f.end:
            self._ends.add(i)
        self._keep(f, _Part(np.array([i]), len(f.ids), f.joints, f.visible))

    def add_many(self, places: NDArray[np.intp], many: Many) -> None:
        """Add messages that one template decoded."""
        self._seq[places], self._t[places] = many.seq, many.t
        people = self._people[places] = many.ids.shape[1]
        ids, size, form = many.ids.tobytes(), 8 * people, many.like.form
        for k, i in enumerate(places.tolist()):
            self._ids[i] = ids[k * size : (k + 1) * size]
            self._form[i] = form
        if many.like.end:
            self._ends.update(places.tolist())
        self._keep(many.like, _Part(places, people, many.joints, many.visible))

    def _keep(self, like: PoseFrame, part: _Part) -> None:
        if part.people:
            kind = like.layout.name, like.joints.shape[2], like.visible is None, like.size
            self._kinds.setdefault(kind, (like, []))[1].append(part)

    def drain(self, min_confidence: float) -> Drain:
        """Map all people onto core15, and return the accepted messages."""
        first = np.cumsum(self._people)
        total = int(first[-1]) if len(first) else 0
        first -= self._people
        joints = visible = None
        bad = np.zeros(total, np.int64)
        for like, parts in self._kinds.values():
            rows = np.concatenate([(first[p.places][:, None] + np.arange(p.people)).ravel() for p in parts])
            some = np.concatenate([p.joints for p in parts])
            seen = None if like.visible is None else np.concatenate([p.visible for p in parts if p.visible is not None])
            j, v, b = core15(some, seen, like.layout, like.size, min_confidence)
            if len(rows) == total and (rows[1:] > rows[:-1]).all():
                joints, visible = j, v
            else:
                if joints is None or visible is None:
                    joints, visible = np.zeros((total, J, 3), np.float32), np.zeros((total, J), np.float32)
                joints[rows], visible[rows] = j, v
            if b is not None:
                bad[rows] = b
        if joints is None or visible is None:
            joints, visible = np.zeros((0, J, 3), np.float32), np.zeros((0, J), np.float32)
        kept = [i for i, ids in enumerate(self._ids) if ids is not None]
        owner = np.repeat(np.arange(len(self._people)), self._people) if bad.any() else None
        by_message = {} if owner is None else _sums(owner, bad)
        place = {i: k for k, i in enumerate(kept)} if self._ends or by_message else {}
        everything = len(kept) == len(self._ids)
        return Drain(
            stream=self.stream if everything else [self.stream[i] for i in kept],
            seq=self._seq.tolist() if everything else self._seq[kept].tolist(),
            t=self._t.tolist() if everything else self._t[kept].tolist(),
            ids=[ids for ids in self._ids if ids is not None],
            people=self._people if everything else self._people[kept],
            first=(first if everything else first[kept]).tolist(),
            message=kept,
            form=self._form if everything else [self._form[i] for i in kept],
            joints=joints,
            visible=visible,
            ends={place[i] for i in self._ends},
            bad={place[i]: n for i, n in by_message.items()},
            unstamped=self._unstamped,
        )


def _sums(owner: NDArray[np.intp], bad: NDArray[np.int64]) -> dict[int, int]:
    """Sum up the bad joints of each message that has any."""
    out: dict[int, int] = {}
    for k in np.flatnonzero(bad).tolist():
        out[int(owner[k])] = out.get(int(owner[k]), 0) + int(bad[k])
    return out
