"""Defines, encodes and decodes what goes out: alerts, scores and status, as one-part messages (form: `edge.wire`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal

from edge.errors import SettingsError, WireError
from edge.wire import COUNT_LIMIT, VERSION, Limits, join, show, split, unpack


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model, engine and support set a message comes from."""

    model: str
    engine: str
    support: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A new, updated or ended alert. Times are capture times in ns; `end` is that of the last window counted in.

    `score` is the newest score, `peak` the highest so far; 1.0 is the limit of normal. `joints` are those whose hiding
    brings the window nearest to normal, strongest first; `moment` is the stretch of capture time whose hiding does the
    same (from, to; empty: none). `clip` is the support clip that came nearest, a file of `category`. `like` is the id
    of an earlier alert of the stream with the same kind of movement (empty: none). `seq` counts alert messages without
    a gap: within `journal`, which outlives the process, or without one within `run`, this process.
    """

    id: str
    type: Literal["new", "update", "end"]
    seq: int
    run: str
    stream: str
    track: int
    start: int
    end: int
    score: float
    peak: float
    category: str
    joints: tuple[str, ...]
    reason: str
    by: Provenance
    journal: str = ""
    clip: str = ""
    moment: tuple[int, ...] = ()
    like: str = ""

    @property
    def row(self) -> str:
        """Identifies the sequence that `seq` belongs to."""
        return self.journal or self.run


@dataclass(frozen=True, slots=True)
class Scores:
    """The windows of one stream that were scored together, as columns of equal length.

    `end` is in ns; a `score` of 1.0 is the limit of normal. `unclear` lists the tracks in view whose newest window
    shows too little of them to be judged.
    """

    seq: int
    run: str
    stream: str
    track: list[int]
    end: list[int]
    score: list[float]
    distance: list[float]
    category: list[str]
    by: Provenance
    unclear: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Status:
    """The engine's state: sent on subscription, on change, and every second.

    `alert_seq` is the `seq` of the next alert message; `replay` is the address to ask for those before it. Of the
    `tracks` in view, `unclear` show too little of the person to be judged. `silent` are streams from which nothing
    comes any more, though they did not end; `warnings` says, a line each, which other streams cannot be judged rightly.
    """

    seq: int
    run: str
    state: Literal["online", "degraded", "draining", "offline"]
    reason: str
    seconds: float
    alert_seq: int
    streams: int
    tracks: int
    frames: int
    frames_lost: int
    windows: int
    by: Provenance
    unclear: int = 0
    journal: str = ""
    replay: str = ""
    silent: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        """Identifies the sequence that `alert_seq` belongs to."""
        return self.journal or self.run


Event = Alert | Scores | Status
_KINDS: dict[str, type[Alert] | type[Scores] | type[Status]] = {"alert": Alert, "score": Scores, "status": Status}


_SCALARS = {"str": (str,), "int": (int,), "float": (float, int), "Literal": (str,)}
"""The types accepted for an annotation. A Literal may be any text, since a newer engine may know others."""


def _taken(kind: type[Any], m: Any) -> dict[str, Any]:
    """Take a dataclass's fields from a map.

    Raises KeyError for a missing field and TypeError for one of another type, so that no later use of a field can fail.
    """
    values = {}
    for f in fields(kind):
        if f.name not in m and (f.default is not MISSING or f.default_factory is not MISSING):
            continue
        value, (outer, _, inner) = m[f.name], str(f.type).partition("[")
        if outer == "Provenance":
            value = Provenance(**_taken(Provenance, value))
        elif outer in _SCALARS:
            if type(value) not in _SCALARS[outer]:
                raise TypeError(f"{f.name} is {show(value)}")
        elif type(value) is not list or {type(x) for x in value} - {*_SCALARS[inner.rstrip("., ]")]}:
            raise TypeError(f"{f.name} is {show(value)}")
        values[f.name] = tuple(value) if outer == "tuple" else value
    return values


def check_topics(topics: Sequence[str]) -> None:
    """Raise SettingsError for a topic that no event's topic begins with: it would never receive anything."""
    if isinstance(topics, str):
        raise SettingsError(f"topics is the text {topics!r:.40}, not a list", fix=f"topics=[{topics!r:.40}]")
    if not isinstance(topics, Collection) or not all(isinstance(t, str) for t in topics):
        raise SettingsError(f"topics is {topics!r:.40}, not a list of texts", fix='for example topics=["alert"]')
    for t in topics:
        if not ("status".startswith(t) or any(k.startswith(t) or t.startswith(k) for k in ("alert/", "score/"))):
            raise SettingsError(
                f"no topic begins with {t!r:.40}",
                why="there are alert/<stream>, score/<stream> and status",
                fix='use "alert", "score", "status", or a stream\'s, such as "alert/cam1"',
            )


def encode_event(event: Event) -> bytes:
    """Encode an event as a one-part message under its topic."""
    if isinstance(event, Status):
        topic = "status"
    else:
        topic = ("alert/" if isinstance(event, Alert) else "score/") + event.stream
    body = {f.name: getattr(event, f.name) for f in fields(event)}
    return join(topic, {"v": VERSION, **body, "by": asdict(event.by)})


def decode_event(parts: Sequence[bytes]) -> Event:
    """Decode a message of `encode_event`. Unknown fields are ignored.

    Raises WireError for missing fields without a default, and for fields of another type.
    """
    try:
        topic, body = split(parts)
        m = unpack(body, Limits(message_bytes=64 << 20))
    except WireError as e:  # its advice is for senders of poses
        raise WireError(e.reason, e.what, why=e.why) from None
    kind = _KINDS.get(topic.split(b"/")[0].decode("utf-8", "replace"))
    if kind is None:
        raise WireError("topic", f"topic {topic[:40]!r} is not alert/…, score/… or status")
    if m.get("v") != VERSION:
        raise WireError(
            "version",
            f"'v' is {show(m.get('v'))}",
            why=f"this program reads {VERSION}",
            fix="install the same version of haad-edge here as on the engine's host",
        )
    try:
        x: Event = kind(**_taken(kind, m))
        columns = (x.track, x.end, x.score, x.distance, x.category) if isinstance(x, Scores) else ()
        if len({len(c) for c in columns}) > 1:
            raise TypeError("columns of different lengths")
        if not all(0 <= n < COUNT_LIMIT for n in (x.seq, x.alert_seq if isinstance(x, Status) else 0)):
            raise TypeError("a number that is no count")
        return x
    except (KeyError, TypeError) as e:
        raise WireError("event", f"an incomplete {kind.__name__} message", why=repr(e)) from None
