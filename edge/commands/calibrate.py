"""`haad-edge calibrate`: fits the limits to one place, from a recording of its normal operation.

    recording ─► the device's own decoding, windows, encoder ─► scores ─┬─► each category's level there
                                                                        └─► the margin that keeps the rate
                                                     support/calibration.json, which `load_support` reads

The file says what it was made from. Without it, the limits are those of the bundle again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.engine import Engine, run_all
from edge.errors import RecordingError, SettingsError, SupportError, WireError
from edge.grid import SECOND, WindowSpec
from edge.judge import Judge
from edge.recordings.recording import Reader
from edge.score import SENSITIVITY, NormalByStream, Scorer, TransitionTimer
from edge.settings import Settings
from edge.skeleton import Float, J
from edge.support.enrol import REFINED, REFINED_VERSION, SupportSet
from edge.support.history import Version
from edge.support.library import set_calibration
from edge.windows import Slots, Windows
from edge.wire import Limits, decode_pose

BELIEF = 60
"""Windows of a recording that weigh as much as the bundle's calibration: a quarter of a minute of one person."""
FACTORS = (0.4, 2.5)
"""Bounds of a level's factor: a recording alone cannot make normal what is far from every clip."""
SHORT_H = 1 / 60
"""Hours of a person below which a recording is said to be short."""
GRID = np.exp(np.arange(0, 1.05, 0.1)).round(4)
"""Factors by which the margins may be widened."""


@dataclass(frozen=True, slots=True)
class Refined:
    """What a recording yields: each category's factor on its level, its number of windows, one factor on all margins.

    Also the alarms that the recording raised before and raises now, the number allowed, and its camera-hours.
    """

    levels: dict[str, float]
    windows: dict[str, int]
    threshold: float
    alarms_before: int
    alarms: int
    allowed: int
    hours: float


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows that came due together: track number (n,), end (n,) in ns, distance (n, G), share of joints seen (n,)."""

    track: Slots
    end: NDArray[np.int64]
    distance: Float
    seen: Float


def refine(
    recording: Reader,
    s: Settings,
    bundle: Bundle,
    engine: Engine,
    support: SupportSet,
    notice: Callable[[str], None] = lambda text: None,
) -> Refined:
    """Play the recording through the device's own stages and find the factors that fit it.

    `support` has the bundle's own limits. If the end of the recording is missing, the rest is used, with a notice.
    Raises RecordingError if it is too short.
    """
    for line in NormalByStream(s.normal, support.names).trouble:
        notice(line)
    engine.bind(support.features, support.mask)
    found = _Player(s, bundle, engine)
    batches = list(found.play(recording))
    if recording.problem:
        notice(recording.problem)
    total = sum(len(b.track) for b in batches)
    if total < BELIEF:
        raise RecordingError(
            f"{recording.path}: too short to calibrate from",
            why=f"it gives {total} windows, and at least {BELIEF} are needed",
            fix="record a few minutes of normal operation, with people in view",
        )
    levels, windows = _levels(batches, found.tracks, s, support)
    moved = support.moved(np.array([levels.get(n, 1.0) for n in support.names]))
    allowed = int((s.false_alarms or SENSITIVITY[s.sensitivity]) * found.hours)

    def alarms(support: SupportSet) -> int:
        return _alarms(batches, Judge(s, bundle.calibration(), len(found.tracks), found), support)

    for factor in GRID.tolist():
        left = alarms(moved.widened(factor))
        if left <= allowed:
            break
    return Refined(levels, windows, factor, alarms(support), left, allowed, found.hours)


class _Player:
    """Takes a recording through decoding and windows to distances. `tracks` are all tracks in it: (stream, id)."""

    def __init__(self, s: Settings, bundle: Bundle, engine: Engine) -> None:
        m = bundle.manifest
        spec = WindowSpec.of(m.frames, m.seconds, s.stride, s.max_gap, s.track_timeout)
        self._windows, self._engine, self._s = Windows(spec, s.max_tracks, s.max_streams), engine, s
        self._limits = Limits(s.max_message_bytes, s.max_people)
        self._span: dict[str, tuple[int, int]] = {}
        self._number: dict[int, int] = {}
        self.tracks: list[tuple[str, int]] = []

    def who(self, slot: int) -> tuple[str, int]:
        """See `edge.judge.Tracks`. A slot here is the track's number in the recording."""
        return self.tracks[slot]

    def place(self, slot: int) -> None:
        """Not known here, so no track continues another's alert."""

    @property
    def hours(self) -> float:
        """Camera-hours: from each stream's first frame to its last."""
        return sum(b - a for a, b in self._span.values()) / SECOND / 3600

    def play(self, recording: Reader) -> Iterator[_Windows]:
        """Yield the recording's windows in order; messages that cannot be read are skipped, as the engine does."""
        for item in recording:
            try:
                frame = decode_pose([item.message], self._limits, partial(int, item.arrival))
            except WireError:
                continue
            stream = self._windows.stream_named(frame.stream)
            if stream is None:
                continue
            first, last = self._span.get(frame.stream, (frame.t, frame.t))
            self._span[frame.stream] = min(first, frame.t), max(last, frame.t)
            if self._windows.advance(stream, frame.t):
                self._release(self._windows.gone(stream))
            joints, visible, _ = frame.core15(self._s.min_confidence)
            slots = self._windows.slots_of(stream, frame.ids.tolist())
            for due, ends in self._windows.push(slots, np.full(len(slots), frame.t), joints, visible):
                yield from self._judge(due, ends)
            if frame.end:
                self._release(list(stream.slots.values()))
                self._windows.drop_stream(stream)

    def _release(self, slots: list[int]) -> None:
        for s in slots:
            self._number.pop(s, None)
        self._windows.release(slots)

    def _judge(self, due: Slots, ends: NDArray[np.int64]) -> Iterator[_Windows]:
        frames = self._windows.spec.frames
        joints, visible = np.empty((len(due), frames, J, 3), np.float32), np.empty((len(due), frames, J), np.float32)
        self._windows.gather(due, joints, visible)
        seen = visible.mean((1, 2))
        fine = seen >= self._s.min_visible
        if fine.any():
            distance = run_all(self._engine, joints[fine], visible[fine])[1]
            for s in due[fine].tolist():
                if s not in self._number:
                    self._number[s] = len(self.tracks)
                    self.tracks.append(self._windows.who(s))
            yield _Windows(np.array([self._number[s] for s in due[fine].tolist()]), ends[fine], distance, seen[fine])


def _levels(
    batches: list[_Windows], tracks: list[tuple[str, int]], s: Settings, support: SupportSet
) -> tuple[dict[str, float], dict[str, int]]:
    """Each category's factor: the median of its windows' scores over the expected score, drawn towards 1 if few.

    A window belongs to the category that it counts as in the engine, even where a transition is nearest to it.
    """
    here, scorer = (
        NormalByStream(s.normal, support.names, support.transitions),
        Scorer(support.limit, support.transitions),
    )
    passing = TransitionTimer(len(tracks))
    usual = support.usual if len(support.usual) else np.full(len(support.limit), 1 / 1.5)
    over, category = [], []
    for b in batches:
        streams = here.rows(tracks[k][0] for k in b.track.tolist())
        found = scorer(b.distance, streams, partial(passing, b.track, b.end))
        over.append(found.score / usual[found.group])
        category.append(found.category)
    every, counted_as = np.concatenate(over), np.concatenate(category)
    levels, windows = {}, {}
    for g, name in enumerate(support.names):
        mine = every[counted_as == g]
        if len(mine):
            shift = float(np.log(np.median(mine) + 1e-6)) * len(mine) / (len(mine) + BELIEF)
            levels[name] = round(float(np.clip(np.exp(shift), *FACTORS)), 4)
            windows[name] = len(mine)
    return levels, windows


def _alarms(batches: list[_Windows], judge: Judge, support: SupportSet) -> int:
    """How many alerts the recording raises with this support."""
    judge.use(support)
    verdicts = [judge(b.track, b.end, b.distance, b.seen) for b in batches]
    return sum(c.type == "new" for v in verdicts for c in v.changes)


def write_refined(root: Path, found: Refined, *, recording: Path, model: str) -> Version | None:
    """Write support/calibration.json, which `load_support` reads, as a version of the folder (None: unchanged)."""
    body = {
        "version": REFINED_VERSION,
        "model": model,
        "recording": recording.name,
        "hours": round(found.hours, 4),
        "date": str(date.today()),
        "levels": found.levels,
        "windows": found.windows,
        "threshold": found.threshold,
    }
    data = (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode()
    return set_calibration(root, data, f"calibrated from {recording.name}")


def command(root: Path, recording: Path | None, bundle: Path | None, *, reset: bool, config: Path | None) -> None:
    """`haad-edge calibrate`: see `edge.cli`."""
    from edge.bundle import open_bundle
    from edge.commands.console import err, say
    from edge.engine import open_engine
    from edge.recordings.recording import read
    from edge.settings import load_settings
    from edge.support.cache import FeatureCache
    from edge.support.enrol import load_support
    from edge.support.transitions import TransitionPlan

    path = root / REFINED
    if reset:
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "no such folder"
            raise SupportError(f"{root}: {what}", fix="name the folder whose calibration to remove: --support DIR")
        if version := set_calibration(root, None, "removed the calibration"):
            say(f"{path}: removed, as version {version.number}; the bundle's own limits apply")
        else:
            say(f"{path}: there is no such file, so nothing was removed; the bundle's own limits apply")
        return
    if recording is None:
        raise SettingsError("no recording to calibrate from", fix="name one with --from, or use --reset")
    reader, s = read(recording), load_settings({}, config)
    model = open_bundle(bundle or s.bundle)
    engine = open_engine(model)
    known = load_support(
        root,
        model,
        engine,
        FeatureCache(s.cache),
        refined=False,
        transitions=TransitionPlan(s.normal, s.max_transitions),
    )
    found = refine(reader, s, model, engine, known, lambda text: say(text, to=err))
    version = write_refined(root, found, recording=recording, model=model.model)
    for name in known.names:
        seen = found.windows.get(name, 0)
        if seen:
            say(f"{name}: {seen} windows, limit × {found.levels[name] * found.threshold:.2f}")
        else:
            say(f"{name}: never the nearest category in the recording; limit × {found.threshold:.2f}")
    say(f"alerts in {found.hours:.2f} camera-hours: {found.alarms_before} before, {found.alarms} now")
    if found.alarms > found.allowed:
        say(
            f"at most {found.allowed} were wanted: is everything in the recording normal? look at what raises alerts",
            to=err,
        )
    if found.hours < SHORT_H:
        say(f"{found.hours * 3600:.0f} s of one person are little to judge by: record some minutes", to=err)
    if found.alarms_before:
        look = f"haad-edge view {recording} --support {root}"
        say(f"was all of it normal? to look at it: {look}; to undo: haad-edge support undo --support {root}", to=err)
    number = f"version {version.number}: " if version else ""
    say(f"{number}{path}: a running engine takes it into use by itself; --reset removes it")
