"""`haad-edge support add|accept|remove|rename|undo|list`: changes the support folder, also while an engine runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.console import MOST, Config, Keys, Remote, number, out, say
from edge.commands.record import POSES_OUT, subscribed

if TYPE_CHECKING:
    from edge.support.history import Version

Support = Annotated[Path, typer.Option("--support", help="the support folder")]


def register(group: typer.Typer) -> None:
    """Add these commands to the group `support`."""
    for name, command in (
        ("add", add),
        ("accept", accept),
        ("remove", remove),
        ("rename", rename),
        ("undo", undo),
        ("list", list_versions),
    ):
        group.command(name)(command)


def add(
    category: Annotated[str, typer.Option(help="the action's name; may be a new one")],
    support: Support,
    stream: Annotated[str, typer.Option("--from-stream", help="the camera; none: the recording's only one")] = "",
    track: Annotated[int | None, typer.Option(help="the person's track id; none: the only one in view")] = None,
    seconds: Annotated[float, number("length of the clip in seconds", min=1, max=120)] = 6.0,
    recording: Annotated[
        Path | None, typer.Option("--from", help="recording to take the clip from; none: live poses")
    ] = None,
    at: Annotated[
        float | None,
        number(
            "where to begin: seconds after the recording's start; negative: before its end; none: its last", min=-MOST
        ),
    ] = None,
    poses: Annotated[str, typer.Option(help="the engine's poses_out, which live poses come from")] = POSES_OUT,
    wait: Annotated[float, number("give up if the person is not in view within so many seconds", min=0)] = 10.0,
    config: Config = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Make a clip from a live camera or a recording, and add it to the support as an example of what is normal."""
    import json

    from edge.errors import SettingsError
    from edge.recordings.recording import read
    from edge.settings import load_settings
    from edge.support import library
    from edge.support.snippet import from_live, from_recording

    s, category = load_settings({}, config), library.as_category(category)
    if recording is not None:
        who, clip = from_recording(read(recording), stream, track, at, seconds, s)
    elif at is not None or not stream:
        raise SettingsError(
            "--at needs a recording" if at is not None else "no camera is named",
            fix="name one with --from FILE" if at is not None else "--from-stream NAME, or --from FILE",
        )
    else:
        with subscribed(poses, "", keys, allow_remote) as source:  # all streams, so that an error can name them
            who, clip = from_live(source, stream, track, seconds, wait, s)
    name = library.clip_name(*who, json.loads(clip.source)["from"])
    what = f"added {who[0]} track {who[1]} to {category}"
    new = not (support / category).is_dir()
    version, placed = library.add(support, category, [(name, clip)], what)
    say(f"{support / placed[0]}: {clip.seconds:.1f} s of {who[0]} track {who[1]}, {clip.fps:.0f} frames a second")
    _report(support, version)
    if new:
        _say_new(category)


def accept(
    alerts: Annotated[list[str], typer.Argument(help="the alert's id, or its first characters; or several")],
    support: Support,
    category: Annotated[
        str | None, typer.Option(help="category to add it to; none: the nearest one, which the alert names")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="the engine's evidence folder; none: from HAAD_EVIDENCE or --config")
    ] = None,
    at: Annotated[
        float | None, number("take only a part, which begins at this second, as view shows it; none: all of it", min=0)
    ] = None,
    seconds: Annotated[float | None, number("length of that part; none: up to the end", min=1)] = None,
    config: Config = None,
) -> None:
    """Declare an alert normal: the movement behind it becomes an example of what is normal. So for several alerts."""
    from edge.errors import SettingsError
    from edge.settings import load_settings
    from edge.support import library

    kept = evidence or load_settings({}, config).evidence
    if kept is None:
        raise SettingsError(
            "the folder with the movement behind alerts is not known",
            fix="name it as for haad-edge run: --evidence DIR",
        )
    part = None if at is None and seconds is None else (at or 0.0, seconds)
    new = category is not None and not (support / category).is_dir()
    version, placed = library.accept(support, alerts, kept, category, part)
    for name in placed:
        say(str(support / name))
    _report(support, version)
    if new and category:
        _say_new(category)
    say(f"what its category covers now, and what may pass for it: haad-edge support show {support}")


def remove(target: Annotated[str, typer.Argument(help="a category, or CATEGORY/CLIP")], support: Support) -> None:
    """Remove a category or a clip."""
    from edge.support import library

    _report(support, library.remove(support, target))


def rename(
    old: Annotated[str, typer.Argument(help="a category, or CATEGORY/CLIP")],
    new: Annotated[str, typer.Argument(help="its new name; for a clip also another category")],
    support: Support,
) -> None:
    """Rename a category, or move a clip."""
    from edge.support import library

    _report(support, library.rename(support, old, new))


def undo(
    support: Support,
    to: Annotated[int | None, typer.Option(min=1, help="back to this version; none: before the last change")] = None,
) -> None:
    """Undo the last change, or go back to a version. Repeat it to go further back."""
    from edge.support import library

    version = library.undo(support, to)
    _report(support, version, f" --to {version.number - 1}")


def list_versions(support: Support) -> None:
    """List the folder's versions: when, what was done, how many clips."""
    from rich.table import Column, Table
    from rich.text import Text

    from edge.support import library

    versions, by_hand = library.versions(support)
    table = Table("version", Column("date", no_wrap=True), "what", "clips", "categories", box=None)
    for v in versions:
        table.add_row(str(v.number), _date(v.date), Text(v.what), str(v.clips), str(v.categories))
    if versions:
        out.print(table)
        if by_hand:
            say("changed by hand since the last version")
    else:
        say(f"{support}: no version on record yet; the first change begins the history")


def _date(iso: str) -> str:
    """A date in this host's time zone, without the zone, which would not fit beside the rest."""
    try:
        return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:  # a version file edited by hand
        return iso


def _say_new(category: str) -> None:
    say(f"if the engine's settings have a table 'normal', name {category} there too, and start the engine again")


def _report(support: Path, version: Version, to: str = "") -> None:
    clips, categories = version.clips, version.categories
    sizes = f"{clips} clip{'s' * (clips != 1)} of {categories} categor{'y' if categories == 1 else 'ies'}"
    say(f"version {version.number}: {version.what}; {sizes}")
    say(f"a running engine picks it up by itself; to undo it: haad-edge support undo --support {support}{to}")
