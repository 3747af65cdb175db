"""`haad-edge view`: shows clips as moving stick figures on a page, and how the engine scores them.

clips ─┬─► stick figures ────────────────────────────────────────┐
       └─► windows ─► encoder, support ─► scores, joints, moment ─┴─► one HTML file
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.commands.console import Config, err, say

if TYPE_CHECKING:
    from edge.clip import Clip
    from edge.settings import Settings

MOST = 200
"""The most figures on a page, which opens slowly with more."""
FRAMES_MOST = 200_000
"""The most poses (person-frames) that are read from a recording: an hour and a half of one person."""
Shown = tuple[str, str, "Clip", float]
"""The heading that a clip is shown under, its title, the clip, and the second of the recording at which it begins."""


def view(
    paths: Annotated[list[Path], typer.Argument(help="clip files, folders of them (support, evidence), or recordings")],
    support: Annotated[
        Path | None, typer.Option(help="support folder to judge them by; none: they are only shown")
    ] = None,
    output: Annotated[Path, typer.Option("--out", help="HTML file to write")] = Path("view.html"),
    bundle: Annotated[Path | None, typer.Option(help="folder of a trained model; none: the same as for run")] = None,
    config: Config = None,
) -> None:
    """Write a page that shows movements as stick figures. With --support it also shows how they score, and why."""
    from edge.commands.figures import figure, write_page
    from edge.errors import ClipError
    from edge.outputs import ready_file, save_text
    from edge.settings import load_settings

    s = load_settings({}, config)
    ready_file(output)
    shown = list(islice(_found(paths, s), MOST + 1))
    if len(shown) > MOST:
        say(f"the page shows the first {MOST} only: name fewer", to=err)
    if not shown:
        raise ClipError(f"{', '.join(map(str, paths))}: nothing to show", why="no clip and no track could be read")
    judge = None
    if support is not None:
        from edge.bundle import open_bundle
        from edge.commands.judged import ClipJudge

        judge = ClipJudge(support, open_bundle(bundle or s.bundle), s)
        for problem in judge.support.problems:
            say(problem, to=err)
    groups: dict[str, list[dict[str, Any]]] = {}
    over = 0
    for heading, title, clip, start in shown[:MOST]:
        card = figure(clip, title, about(clip), start)
        over += judge(clip, card) if judge else 0
        groups.setdefault(heading, []).append(card)
    count = min(len(shown), MOST)
    title = f"{count} movement{'s' * (count > 1)}"
    if judge:
        title += f" judged by {support}, {over} above the limit of normal"
    save_text(output, write_page(title, groups, judge.near if judge else [], judged=judge is not None))
    say(f"{output}: {title}; open it in a browser")


def _found(paths: list[Path], s: Settings) -> Iterator[Shown]:
    """Yield what files and folders hold to show; name clips that cannot be read. Raises ClipError, RecordingError."""
    from edge.clip import iter_clips
    from edge.commands.figures import LONGEST_S
    from edge.errors import ClipError
    from edge.recordings.playback import find_clips
    from edge.recordings.recording import is_recording, read
    from edge.support.snippet import pieces

    for path in paths:
        if is_recording(path):
            recording = read(path)
            for (stream, track), start, piece in pieces(recording, s, LONGEST_S, FRAMES_MOST):
                yield _text(path), f"{stream} track {track} at {start:.1f} s", piece, start
            if recording.problem:
                say(recording.problem, to=err)
            continue
        for file, clip in iter_clips(find_clips([path])):
            if isinstance(clip, ClipError):
                say(f"left out: {clip}", to=err)
            else:
                yield _text(file.parent), _text(file.name), clip, 0.0


def about(clip: Clip) -> list[str]:
    """Describe a clip in a line or two: for evidence which alert, for a recorded track when by the camera's clock."""
    lines = [f"{clip.seconds:.1f} s, {clip.fps:g} frames a second"]
    try:
        found = json.loads(clip.source)
        begin = datetime.fromtimestamp(found["from"] / 1e9, timezone.utc)
        alert = f"alert {found['alert']}: {found['stream']}, track {found['track']}, " if "alert" in found else ""
        lines.append(f"{alert}{begin:%Y-%m-%d %H:%M:%S} UTC")
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        lines[0] += f", subject {clip.subject}" if clip.subject else ""
        lines += [clip.source[:200]] if clip.source else []
    return lines


def _text(path: Path | str) -> str:
    """A path as text that can be written, whatever bytes it consists of."""
    return os.fsencode(path).decode(errors="replace")
