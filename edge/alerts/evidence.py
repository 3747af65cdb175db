"""The movement behind each alert, kept as a clip for as long as somebody may say "this was normal".

    loop ── put(window) ──► queue ──► thread: joined to the alert's last window ──► <alert id>.npz

A window is two seconds; an alert that stands gives one at every update, and they join without a seam, as they are cut
from one track's grid. Where they do not (the alert went on under another track id, or after a gap) a second file
begins: <alert id>-2.npz. The oldest files go when there are too many.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import replace
from edge.clip import Clip, load_clip, pack_clip
from edge.errors import SettingsError, SupportError
from edge.grid import SECOND
from edge.notices import Notices
from edge.skeleton import Float

LONGEST_S = 10.0
"""Of one alert so much is kept; what lasts longer is the same over again."""
PARTS_MOST = 8
"""Files of one alert: one that comes and goes for hours must not push all others out."""
WAITING_MOST = 256
KNOWN_MOST, HELD_MOST = 4096, 512
"""Alerts of which it is known how far their files go; and those whose clip is in memory, up to 60 kB each."""
CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A window of an alert: who, until when (ns), the nearest normal category; joints (T, 15, 3), visible (T, 15)."""

    id: str
    stream: str
    track: int
    end: int
    category: str
    joints: Float
    visible: Float


@dataclass(slots=True)
class _Part:
    """One file being written: its number and track, how far it goes (ns), and whether it is as long as it may be."""

    number: int
    track: int
    category: str
    end: int
    full: bool


class Evidence:
    """Writes clips to `root`, `most` files at most. `lost` counts windows that could not be kept.

    `rate` is the windows' rows a second.
    """

    def __init__(self, root: Path, rate: float, most: int, notices: Notices) -> None:
        self.lost = 0
        self._root, self._rate, self._most, self._notices = root, rate, most, notices
        self._parts: OrderedDict[str, _Part] = OrderedDict()
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        self._waiting: deque[Exhibit] = deque()
        self._wake, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    def put(self, exhibit: Exhibit) -> None:
        """Hand over a window; its arrays are this one's from now on. Never waits for the disk."""
        with self._wake:
            if len(self._waiting) >= WAITING_MOST:
                self._lose("the disk does not keep up")
                return
            self._waiting.append(exhibit)
            self._wake.notify()

    def close(self) -> None:
        """Write what is left, if the disk lets us within two seconds."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S)

    def _lose(self, why: str) -> None:
        self.lost += 1
        self._notices.say(f"evidence {self._root}: a window is not kept: {why}", "evidence")

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                exhibit = self._waiting.popleft()
            try:
                self._keep(exhibit)
            except Exception as e:  # whatever the disk does, alerts go on, and so does this thread
                self._lose(str(e))

    def _keep(self, x: Exhibit) -> None:
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
        # The nearest category when it was raised: what the alert says.
        category = part.category if part else x.category
        about = {
            "alert": x.id,
            "stream": x.stream,
            "track": x.track,
            "from": begin,
            "to": x.end,
            "category": category,
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
        replace(path, pack_clip(clip))
        if fresh:
            self._trim()

    def _trim(self) -> None:
        """Delete the oldest files beyond `most`."""
        found = []
        for path in self._root.glob("*.npz"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(found)[: -self._most]:
            path.unlink(missing_ok=True)


def prepare(root: Path) -> None:
    """Make the folder, so that the first alert is not the first to find that it cannot be. Raises SettingsError."""
    fix = "name a folder that can be written: --evidence DIR, or leave it out"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)  # these are people's movements
    except OSError as e:
        why = f"{root} is a file, not a folder" if root.is_file() else e.strerror or str(e)
        raise SettingsError(f"evidence {root}: cannot be kept there", why=why, fix=fix) from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise SettingsError(f"evidence {root}: cannot be kept there", why="the folder cannot be written", fix=fix)


def find(root: Path, id: str) -> list[tuple[Path, Clip, Mapping[str, Any]]]:
    """The clips of an alert, by its id or an unambiguous beginning of it; and what each says of itself.

    Raises SupportError where there is none, or more than one alert that begins so; ClipError for a damaged file.
    """
    if not re.fullmatch(r"[0-9a-f]{4,64}", id):
        raise SupportError(
            f"{id!r:.80} is no alert's id", fix="haad-edge listen shows them; four characters are enough"
        )
    files = sorted(root.glob(f"{id}*.npz")) if root.is_dir() else []
    alerts = {path.stem.partition("-")[0] for path in files}
    if len(alerts) > 1:
        raise SupportError(f"{len(alerts)} alerts begin with {id}", why=", ".join(sorted(alerts)[:5]))
    if not files:
        raise SupportError(
            f"{root}: nothing kept of alert {id}",
            why="the engine keeps the movement behind an alert only with the setting evidence, and the newest ones",
            fix="haad-edge run --evidence DIR; or take it from a recording: haad-edge support add --from",
        )
    found = []
    for path in sorted(files, key=lambda p: (len(p.stem), p.stem)):
        clip = load_clip(path)
        try:
            about = json.loads(clip.source)
            assert isinstance(about["category"], str)
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise SupportError(f"{path}: does not say which alert it is of", fix="was it written by run?") from None
        found.append((path, clip, about))
    return found
