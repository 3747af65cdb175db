"""`haad-edge view`: shows clips as moving stick figures on a page, and how the engine scores them.

clips ─┬─► stick figures ────────────────────────────────────────┐
       └─► windows ─► encoder, support ─► scores, joints, moment ─┴─► one HTML file
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.commands.console import Config, err, number, say

if TYPE_CHECKING:
    from edge.clip import Clip
    from edge.settings import Settings

MOST = 200
"""The most figures on a page, which opens slowly with more."""
LONGEST_S = 30.0
"""The longest stretch in one figure; what lasts longer is shown in pieces."""
POSES_MOST = 200_000
"""The most poses (person-frames) that are read from a recording: 1.8 hours of one person at 30 frames a second."""
PAGE = b"<!doctype html"


@dataclass(frozen=True, slots=True)
class Shown:
    """A movement on the page: its heading and title, and the second of the clip or recording at which it begins.

    `stream` is where it was seen, '' if that is not known. For evidence: the name of the `alert`'s file, and `when` it
    was, ns.
    """

    heading: str
    title: str
    clip: Clip
    start: float
    stream: str
    alert: str = ""
    when: int | None = None


def view(
    paths: Annotated[list[Path], typer.Argument(help="clip files, folders of them (support, evidence), or recordings")],
    support: Annotated[
        Path | None, typer.Option(help="support folder to judge them by; none: they are only shown")
    ] = None,
    output: Annotated[Path, typer.Option("--out", help="HTML file to write")] = Path("view.html"),
    at: Annotated[float, number("recordings: begin with this second", min=0)] = 0.0,
    bundle: Annotated[Path | None, typer.Option(help="folder of a trained model; none: the same as for run")] = None,
    config: Config = None,
) -> None:
    """Write a page that shows movements as stick figures. With --support it also shows how they score, and why."""

    from edge.alerts.alike import near_of
    from edge.bundle import open_bundle
    from edge.commands.figures import figure, write_page
    from edge.commands.sections import Row, sections
    from edge.errors import ClipError
    from edge.outputs import save_text
    from edge.settings import load_settings

    s = load_settings({}, config)
    _ready(output)
    model = open_bundle(bundle or s.bundle)
    judge = None
    if support is not None:
        from edge.commands.judged import ClipJudge

        judge = ClipJudge(support, model, s)
        for problem in judge.support.problems:
            say(problem, to=err)
    rows: dict[str, list[Row]] = {}
    count = over = 0
    for x in _found(paths, s, model.manifest.seconds, at):
        if count == MOST:
            more = f", or begin later in it: --at {x.start:.0f}" if x.start else ""
            say(f"only the first {MOST} movements are shown, up to {x.title}; to see others, name fewer{more}", to=err)
            break
        card = figure(x.clip, x.title, about(x.clip), x.start)
        judged = judge(x.clip, card, x.stream) if judge else None
        over += judged is not None and judged.over
        count += 1
        row = Row(card, x.start, x.when, x.alert, judged.vector if judged else None)
        rows.setdefault(x.heading, []).append(row)
    if not rows:
        raise ClipError(f"{', '.join(map(str, paths))}: nothing to show", why="no clip and no track could be read")
    title = f"{count} movement{'s' * (count > 1)}"
    if judge:
        title += f" judged by {support}, {over} above the limit of normal"
    near = near_of(judge.support.limit[: len(judge.support.names)]) if judge else 0.0
    arranged = sections(rows, near, support)
    save_text(output, write_page(title, arranged, judge.near if judge else [], judged=judge is not None))
    say(f"{output}: {title}; open it in a browser")


def _ready(output: Path) -> None:
    """Raises OutputError if the page cannot be written there, or would replace something else, such as a clip."""
    from edge.errors import OutputError
    from edge.outputs import ready_file

    ready_file(output)
    if output.is_file():
        with output.open("rb") as f:
            begins = f.read(len(PAGE))
        if begins and begins.lower() != PAGE:
            raise OutputError(
                f"{output}: exists already, and is not an HTML page",
                why="it would be replaced",
                fix="name another file: --out view.html",
            )


def _found(paths: list[Path], s: Settings, window: float, at: float) -> Iterator[Shown]:
    """Yield what files and folders hold to show, and name what cannot be read. Raises RecordingError."""
    from edge.alerts.evidence import is_kept
    from edge.clip import iter_clips
    from edge.errors import ClipError
    from edge.recordings.playback import find_clips
    from edge.recordings.recording import is_recording, read
    from edge.support.snippet import pieces, spans

    for path in paths:
        if is_recording(path):
            recording = read(path)
            cut, upto = pieces(recording, s, LONGEST_S, window, at=at, most=POSES_MOST)
            for (stream, track), start, piece in cut:
                yield Shown(_text(path), f"{stream} track {track} at {start:.1f} s", piece, start, stream)
            if recording.problem:
                say(recording.problem, to=err)
            if upto is not None:
                say(f"{path}: shown up to {upto:.0f} s; for what comes then: --at {upto - window:.0f}", to=err)
            continue
        try:
            files = find_clips([path])
        except ClipError as e:
            say(f"left out: {e}", to=err)
            continue
        if all(is_kept(f) for f in files):  # the newest alerts first, if there is not room for all
            files.sort(key=lambda f: -f.stat().st_mtime if f.exists() else 0)
        for file, clip in iter_clips(files):
            if isinstance(clip, ClipError):
                say(f"left out: {clip}", to=err)
                continue
            origin = _origin(clip)
            stream, of = str(origin.get("stream", "")), ("", None)
            if file.stem.partition("-")[0] == origin.get("alert"):  # a support's clip may have been an alert, too
                of = (_text(file.stem), origin["from"])
            for start, end in spans(clip.seconds, LONGEST_S, window):
                title = _text(file.name) + (f" at {start:.0f} s" if clip.seconds > LONGEST_S else "")
                yield Shown(_text(file.parent), title, clip.part(start, end), start, stream, *of)


def _origin(clip: Clip) -> dict[str, Any]:
    """What a clip of evidence, or of a recording, says of itself: its alert, stream, track and time. Else nothing."""
    try:
        found = json.loads(clip.source)
        whole = isinstance(found, dict) and isinstance(found["from"], int) and {"stream", "track"} <= found.keys()
        return found if whole else {}
    except (ValueError, KeyError, RecursionError):
        return {}


def about(clip: Clip) -> list[str]:
    """Describe a clip in a line or two: for evidence which alert, for a recorded track when by the camera's clock."""
    lines, found = [f"{clip.seconds:.1f} s, {clip.fps:g} frames a second"], _origin(clip)
    try:
        begin = datetime.fromtimestamp(found["from"] / 1e9, timezone.utc)
    except (KeyError, OverflowError, OSError, ValueError):
        lines[0] += f", subject {clip.subject}" if clip.subject else ""
        return lines + [clip.source[:200]] * bool(clip.source)
    alert = f"alert {found['alert']}: {found['stream']}, track {found['track']}, " if "alert" in found else ""
    lines.append(f"{alert[:200]}{begin:%Y-%m-%d %H:%M:%S} UTC")
    if "peak" in found:
        unlike = found.get("unlike")
        named = f", most in {', '.join(map(str, unlike))}" if unlike and isinstance(unlike, list) else ""
        lines.append(f"the engine said: unlike '{found.get('category')}'{named}; highest score {found['peak']}"[:200])
    return lines


def _text(path: Path | str) -> str:
    """A path as text that can be written, whatever bytes it consists of."""
    return os.fsencode(path).decode(errors="replace")
