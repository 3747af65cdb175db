"""Changes a support folder: add, remove, rename, accept an alert, undo. Each change is one version of its history.

A running engine picks a change up by itself, as a whole or not at all; see `edge.support.history`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.alerts import evidence
from edge.clip import Clip, pack_clip
from edge.errors import SupportError, command
from edge.grid import SECOND
from edge.support.enrol import REFINED
from edge.support.history import FOLDER, Files, Version, changing
from edge.support.snippet import LEAST_S

NAME_BYTES = 200
Store = Callable[[bytes], str]


def add(root: Path, category: str, clips: Sequence[tuple[str, Clip]], what: str = "") -> tuple[Version, list[str]]:
    """Add named clips to a category, which may be new; returns the version, and the clips' paths in the folder.

    Clips that the folder has already are skipped. Raises SupportError when it has all of them.
    """
    category, placed = as_category(category), list[str]()
    root.mkdir(parents=True, exist_ok=True)

    def edit(files: Files, store: Store) -> None:
        there = {digest: name for name, digest in files.items()}
        old = list[str]()
        for stem, clip in clips:
            digest = store(pack_clip(clip))
            if digest in there:
                old.append(there[digest])
            else:
                placed.append(_free(files, f"{category}/{_plain(stem)}"))
                files[placed[-1]], there[digest] = digest, placed[-1]
        if clips and not placed:
            raise _there_already(root, old, category)

    with changing(root) as history:
        return history.change(what or f"added {len(clips)} to {category}", edit), placed


def _there_already(root: Path, names: list[str], category: str) -> SupportError:
    elsewhere = next((n for n in names if n.partition("/")[0] != category), None)
    return SupportError(
        f"{root}: nothing would change",
        why=f"the folder has this already, as {', '.join(names)[:300]}",
        fix=command("support", "rename", elsewhere, category, "--support", root) if elsewhere else "",
    )


def remove(root: Path, target: str) -> Version:
    """Remove a category, "walk" or "walk/", or one clip of it, "walk/1". Raises SupportError when it is not there."""
    target = _bare(target)

    def edit(files: Files, store: Store) -> None:
        for name in _named(files, target, root):
            del files[name]

    with changing(root) as history:
        return history.change(f"removed {target}", edit)


def rename(root: Path, old: str, new: str) -> Version:
    """Rename a category or a clip: "walk/1" to "walk/old", or to another category as "wave/1".

    A name that ends in a slash, as a shell completes folders, means the category. Raises SupportError when the old name
    does not exist or the new one does.
    """
    old, new = _bare(old), _bare(new)
    if "/" in old:  # the name the clip will really get, so that the version's text is exact
        category, _, stem = new.partition("/")
        stem = stem.removesuffix(".npz") or old.rpartition("/")[2].removesuffix(".npz")
        new = f"{as_category(category)}/{_plain(stem)}"

    def edit(files: Files, store: Store) -> None:
        names = _named(files, old, root)
        if "/" in old:
            moves = {names[0]: f"{new}.npz"}
        else:
            moves = {name: f"{as_category(new)}/{name.partition('/')[2]}" for name in names}
            if any(name.startswith(f"{new}/") for name in files):
                raise SupportError(
                    f"{root}: category '{new}' exists already",
                    fix="move the clips into it one by one",
                )
        for source, goal in moves.items():
            if goal in files:
                raise SupportError(f"{root}: '{goal}' exists already", fix="choose another name")
            files[goal] = files.pop(source)
        if "/" not in old and REFINED in files:
            files[REFINED] = store(_renamed((root / REFINED).read_bytes(), old, new))

    with changing(root) as history:
        return history.change(f"renamed {old} to {new}", edit)


def accept(
    root: Path, alerts: Sequence[str], kept: Path, category: str | None, part: tuple[float, float | None] | None = None
) -> tuple[Version, list[str]]:
    """Add the movement behind alerts to the category that was nearest to them, or to `category`, as one version.

    `kept` is the engine's evidence folder. `part`, of a single alert: only what begins at that second of the named
    file, or else of the first one, and lasts so many seconds (None: to its end). Raises SupportError.
    """
    if not root.is_dir():
        raise SupportError(f"{root}: no such folder", fix="name the support folder of the engine that raised the alert")
    found = [evidence.find(kept, alert) for alert in alerts]
    nearest = dict.fromkeys(str(files[0][2]["category"]) for files in found)
    if category is None and len(nearest) > 1:
        raise SupportError(
            "these alerts are nearest to different categories", why=", ".join(nearest), fix="name one: --category NAME"
        )
    if part is not None and len(found) > 1:
        raise SupportError("a part of several alerts", fix="with --at or --seconds name one alert")
    into = _bare(category) if category is not None else next(iter(nearest))
    if part is None:
        clips = [(f"alert_{path.stem}", clip) for files in found for path, clip, _ in files]
    else:
        clips = [(f"alert_{found[0][0][0].stem}", _part(*found[0][0], *part))]
    ids = ", ".join(str(files[0][2].get("alert", alert)) for files, alert in zip(found, alerts, strict=True))
    return add(root, into, clips, f"accepted {'' if part is None else 'a part of '}{ids} as {into}")


def _part(path: Path, clip: Clip, about: Mapping[str, Any], at: float, seconds: float | None) -> Clip:
    """A part of a kept clip, which says of itself when it was. Raises SupportError if it is too short."""
    end = clip.seconds if seconds is None else min(at + seconds, clip.seconds)
    lasts = end - at + 1 / clip.fps  # its last frame has a duration too
    if lasts < LEAST_S - 1e-6:
        raise SupportError(
            f"{path}: lasts {clip.seconds:.1f} s, so from {at:g} s on there are {max(0.0, lasts):.1f} s",
            why=f"a clip needs at least {LEAST_S:g} s",
            fix="choose an earlier --at",
        )
    part = clip.part(at, end)
    begin = about.get("from")
    when = {"from": begin + round(at * SECOND), "to": begin + round(end * SECOND)} if isinstance(begin, int) else {}
    return replace(part, source=json.dumps({**about, **when}, ensure_ascii=False))


def set_calibration(root: Path, data: bytes | None, what: str) -> Version | None:
    """Write the folder's calibration.json, or remove it (None), as a version; None if that is how it is already.

    Raises SupportError.
    """

    def edit(files: Files, store: Store) -> None:
        files.pop(REFINED, None)
        if data is not None:
            files[REFINED] = store(data)

    path = root / REFINED
    with changing(root) as history:
        if (path.read_bytes() if path.is_file() else None) == data:
            return None
        return history.change(what, edit)


def undo(root: Path, to: int | None) -> Version:
    """Go back to the state before the last change, or to version `to`. Raises SupportError if there is none."""
    with changing(root) as history:
        return history.undo(to)


def versions(root: Path) -> tuple[list[Version], bool]:
    """All versions on record, oldest first; and whether the folder was changed by hand since the last."""
    if root.is_dir() and not (root / FOLDER).is_dir():
        return [], False  # looking must not create a history
    with changing(root) as history:
        found = history.versions()
        return found, bool(found) and history.current() != found[-1].files


def clip_name(stream: str, track: int, t: int) -> str:
    """A clip's name from its stream, track and time (ns since 1970)."""
    return f"{stream}_{track}_{datetime.fromtimestamp(t / 1e9).strftime('%Y%m%d-%H%M%S')}"


def _bare(name: str) -> str:
    """Strip the slash that a shell's completion leaves behind a folder."""
    return name.rstrip("/")


def as_category(name: str) -> str:
    """Check a category's name, and strip its trailing slash. Raises SupportError if no category can have it."""
    name = _bare(name)
    if not name.isprintable() or not name.strip() or "/" in name or name[0] == "." or len(name.encode()) > NAME_BYTES:
        raise SupportError(
            f"{name!r:.80} cannot name a category",
            why=f"it becomes a folder: printable, without /, not starting with a dot, at most {NAME_BYTES} bytes",
            fix="for example --category loading",
        )
    return name


def _plain(stem: str) -> str:
    """Make a file name from a stream's name, which may hold anything printable."""
    return re.sub(r"[^\w.-]+", "-", stem).strip(".-")[:80] or "clip"


def _free(files: Files, stem: str) -> str:
    """A file name that is not taken yet."""
    name, n = f"{stem}.npz", 2
    while name in files:
        name, n = f"{stem}-{n}.npz", n + 1
    return name


def _named(files: Files, target: str, root: Path) -> list[str]:
    """The clips that "walk" or "walk/1" stands for. Raises SupportError when there are none."""
    clip = target if target.endswith(".npz") else f"{target}.npz"
    found = [clip] if "/" in target and clip in files else [n for n in files if n.startswith(f"{target}/")]
    if not found or not target:
        category, inside, _ = target.partition("/")
        clips = [n.partition("/")[2].removesuffix(".npz") for n in files if inside and n.startswith(f"{category}/")]
        there = clips or sorted({n.partition("/")[0] for n in files if "/" in n})
        kind = f"the clips of {category}" if clips else "its categories"
        raise SupportError(f"{root}: there is no '{target}'", fix=f"{kind} are {', '.join(there)[:300] or 'none'}")
    return found


def _renamed(data: bytes, old: str, new: str) -> bytes:
    """Rename a category in a calibration file's content; content that cannot be read stays as it is."""
    try:
        value = json.loads(data)
        for part in ("levels", "windows"):
            if old in value.get(part, {}):
                value[part][new] = value[part].pop(old)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
