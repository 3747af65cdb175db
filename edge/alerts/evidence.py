"""Keeps the movement behind each alert as a clip, so that an operator can still say "this was normal".

    loop ── put(window) ──► queue ──► thread: joined to the alert's last window ──► <alert id>.npz

A window is two seconds. A standing alert yields one at every update, and they join without a seam, since they are cut
from one track's grid. Where they do not join (the alert continued under another track id, or after a gap) a second file
begins: <alert id>-2.npz. When there are too many files, the oldest are deleted, and so is what is too old.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import replace_file
from edge.clip import Clip, load_clip, pack_clip
from edge.errors import SettingsError, SupportError
from edge.grid import SECOND
from edge.notices import Notices
from edge.skeleton import Float

LONGEST_S = 10.0
"""The longest clip that is kept in one file; movement beyond it mostly repeats."""
PARTS_MOST = 8
"""Files per alert: an alert that comes and goes for hours must not push all others out."""
WAITING_MOST = 256
KNOWN_MOST, HELD_MOST = 4096, 512
"""Alerts for which the end of the newest file is remembered, and those whose clip is in memory, up to 60 kB each."""
CLOSE_S = 2.0
TIDY_S, DAY_S = 600.0, 86400.0


@dataclass(frozen=True, slots=True)
class AlertWindow:
    """One window of an alert: its track, its end (ns) and nearest category; joints (T, 15, 3), visible (T, 15).

    `peak` is the alert's highest score so far, `unlike` the joints that it names.
    """

    id: str
    stream: str
    track: int
    end: int
    category: str
    peak: float
    unlike: tuple[str, ...]
    joints: Float
    visible: Float


@dataclass(slots=True)
class _Part:
    """The newest file of an alert: its number, its track, its end (ns), and whether it has reached its full length."""

    number: int
    track: int
    category: str
    end: int
    full: bool


class Evidence:
    """Writes the clips of alerts to `root`, at most `most` files, and deletes those that are `days` old.

    `rate` is the windows' rows per second. `lost` counts windows that could not be kept. `wall`: seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        rate: float,
        most: int,
        notices: Notices,
        *,
        days: float = math.inf,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.lost = 0
        self._root, self._rate, self._most, self._notices = root, rate, most, notices
        self._days, self._wall = days, wall
        self._parts: OrderedDict[str, _Part] = OrderedDict()
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        self._waiting: deque[AlertWindow] = deque()
        self._tidied = -math.inf
        self._wake, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    def put(self, window: AlertWindow) -> None:
        """Queue a window for writing, and take ownership of its arrays. Never waits for the disk."""
        with self._wake:
            if len(self._waiting) >= WAITING_MOST:
                self._lose("the disk does not keep up")
                return
            self._waiting.append(window)
            self._wake.notify()

    def close(self) -> None:
        """Write the queued windows, for at most CLOSE_S."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S)

    def _lose(self, why: str) -> None:
        self.lost += 1
        self._notices.say(f"evidence {self._root}: a window could not be kept: {why}", "evidence")

    def _run(self) -> None:
        while True:
            with self._wake:
                due = max(0.0, self._tidied + TIDY_S - time.monotonic())
                self._wake.wait_for(lambda: self._waiting or self._closing, due)
                if self._closing and not self._waiting:
                    return
                window = self._waiting.popleft() if self._waiting else None
            try:
                if window:
                    self._keep(window)
                if time.monotonic() >= self._tidied + TIDY_S:  # also while an alert stands for days
                    self._tidied = time.monotonic()
                    self._trim()
            except Exception as e:  # whatever the disk does, this thread must go on
                self._lose(str(e))

    def _keep(self, x: AlertWindow) -> None:
        part, clip = self._parts.pop(x.id, None), self._clips.pop(x.id, None)
        rows = round((x.end - part.end) / SECOND * self._rate) if part else 0
        joins = part is not None and part.track == x.track and 0 < rows <= len(x.joints)
        if part and joins and part.full:
            self._parts[x.id], part.end = part, x.end
            return
        if part and joins and clip:
            joints = np.concatenate([clip.joints, x.joints[-rows:]])
            visible = np.concatenate([clip.visible, x.visible[-rows:]])
            number = part.number
        elif part and part.number == PARTS_MOST:
            self._parts[x.id] = part
            return
        else:
            joints, visible, number = x.joints, x.visible, part.number + 1 if part else 1
        begin = x.end - round((len(joints) - 1) / self._rate * SECOND)
        # The nearest category when the alert was raised, which is the one that the alert names.
        category = part.category if part else x.category
        about = {
            "alert": x.id,
            "stream": x.stream,
            "track": x.track,
            "from": begin,
            "to": x.end,
            "category": category,
            "peak": round(x.peak, 2),
            "unlike": x.unlike,
        }
        clip = Clip(joints, visible, self._rate, f"{x.stream}/{x.track}", json.dumps(about, ensure_ascii=False))
        full = clip.seconds >= LONGEST_S
        self._parts[x.id] = _Part(number, x.track, category, x.end, full)
        if not full:
            self._clips[x.id] = clip
        if len(self._parts) > KNOWN_MOST:
            self._parts.popitem(last=False)
        if len(self._clips) > HELD_MOST:
            self._clips.popitem(last=False)
        path = self._root / f"{x.id}{f'-{number}' if number > 1 else ''}.npz"
        fresh = not path.exists()
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)  # these are people's movements
        replace_file(path, pack_clip(clip))
        if fresh:
            self._trim()

    def _trim(self) -> None:
        """Delete the oldest files beyond `most`, and those that are too old."""
        found = []
        for path in self._root.glob("*.npz"):
            # Whatever else somebody keeps there stays.
            with contextlib.suppress(OSError):
                if is_kept(path):
                    found.append((path.stat().st_mtime, path))
        found.sort()
        over, oldest = max(0, len(found) - self._most), self._wall() - self._days * DAY_S
        for k, (date, path) in enumerate(found):
            if k < over or date < oldest:
                try:
                    path.unlink(missing_ok=True)
                except OSError as e:  # the others must go all the same
                    self._notices.say(f"evidence {path}: cannot be deleted: {e.strerror}", "evidence delete")


def is_kept(path: Path) -> bool:
    """Whether a file's name is one that `Evidence` gives."""
    return bool(re.fullmatch(r"[0-9a-f]{16}(-\d+)?\.npz", path.name))


def prepare(root: Path) -> None:
    """Create the folder at start-up, so that a bad path shows before the first alert. Raises SettingsError."""
    fix = "name a folder that can be written: --evidence DIR, or leave it out"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)  # these are people's movements
    except OSError as e:
        why = f"{root} is a file, not a folder" if root.is_file() else e.strerror or str(e)
        raise SettingsError(f"evidence {root}: cannot be kept there", why=why, fix=fix) from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise SettingsError(f"evidence {root}: cannot be kept there", why="the folder cannot be written", fix=fix)


def find(root: Path, id: str) -> list[tuple[Path, Clip, Mapping[str, Any]]]:
    """Load an alert's clips by its id or an unambiguous prefix: each one's path, clip and description.

    With a number behind it, as in "3f2a-2", only the file of that number; the first one has 1. Raises SupportError if
    no alert or more than one has that prefix, ClipError if a file is damaged.
    """
    if not re.fullmatch(r"[0-9a-f]{4,64}(-\d+)?", id):
        raise SupportError(
            f"{id!r:.80} is not an alert id", fix="haad-edge listen shows the ids; four characters are enough"
        )
    head, _, number = id.partition("-")
    there = [(path, *path.stem.partition("-")[::2]) for path in root.glob(f"{head}*.npz")]
    there = [x for x in there if re.fullmatch("[0-9a-f]+", x[1]) and number in ("", x[2] or "1")]
    files, alerts = [path for path, _, _ in there], {alert for _, alert, _ in there}
    if len(alerts) > 1:
        raise SupportError(f"{len(alerts)} alerts begin with {id}", why=", ".join(sorted(alerts)[:5]))
    if not files:
        raise SupportError(
            f"{root}: nothing is kept of alert {id}",
            why="the engine keeps the movement behind alerts only if evidence is set, and only for the newest alerts",
            fix="haad-edge run --evidence DIR; or take it from a recording: haad-edge support add --from",
        )
    found = []
    for path in sorted(files, key=lambda p: (len(p.stem), p.stem)):
        clip = load_clip(path)
        try:
            about = json.loads(clip.source)
            assert isinstance(about["category"], str)
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise SupportError(
                f"{path}: does not say which alert it belongs to", fix="use a file that haad-edge run --evidence wrote"
            ) from None
        found.append((path, clip, about))
    return found
