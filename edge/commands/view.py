"""`haad-edge view`: shows clips as moving stick figures on a page, and how the engine scores them.

clips ─┬─► stick figures ────────────────────────────────────────┐
       └─► windows ─► encoder, support ─► scores, joints, moment ─┴─► one HTML file
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.commands.console import Config, err, say

if TYPE_CHECKING:
    from edge.clip import Clip

MOST = 200
"""The most clips on a page, which opens slowly with more."""


def view(
    paths: Annotated[list[Path], typer.Argument(help="clip files, or folders of them, such as support or evidence")],
    support: Annotated[
        Path | None, typer.Option(help="support folder to judge the clips by; none: they are only shown")
    ] = None,
    output: Annotated[Path, typer.Option("--out", help="HTML file to write")] = Path("view.html"),
    bundle: Annotated[Path | None, typer.Option(help="folder of a trained model; none: the same as for run")] = None,
    config: Config = None,
) -> None:
    """Write a page that shows clips as moving stick figures. With --support it also shows how they score, and why."""
    from edge.clip import iter_clips
    from edge.commands.figures import figure, write_page
    from edge.errors import ClipError
    from edge.outputs import ready_file, save_text
    from edge.recordings.playback import find_clips

    files = find_clips(paths)
    ready_file(output)
    if len(files) > MOST:
        say(f"{len(files)} clips: the page shows the first {MOST}", to=err)
    judge = None
    if support is not None:
        from edge.bundle import open_bundle
        from edge.commands.judged import ClipJudge
        from edge.settings import load_settings

        s = load_settings({}, config)
        judge = ClipJudge(support, open_bundle(bundle or s.bundle), s)
        for problem in judge.support.problems:
            say(problem, to=err)
    groups: dict[str, list[dict[str, Any]]] = {}
    over = 0
    for path, clip in iter_clips(files[:MOST]):
        if isinstance(clip, ClipError):
            say(f"left out: {clip}", to=err)
            continue
        card = figure(clip, _text(path.name), about(clip))
        over += judge(clip, card) if judge else 0
        groups.setdefault(_text(path.parent), []).append(card)
    if not groups:
        raise ClipError(f"{', '.join(map(str, paths))}: no clip can be shown", why="none of the files can be read")
    count = sum(map(len, groups.values()))
    title = f"{count} clip{'s' * (count > 1)}"
    if judge:
        title += f" judged by {support}, {over} above the limit of normal"
    save_text(output, write_page(title, groups, judge.near if judge else [], judged=judge is not None))
    say(f"{output}: {title}; open it in a browser")


def about(clip: Clip) -> list[str]:
    """Describe a clip in a line or two, from what its file says. For evidence: which alert, where and when."""
    lines = [f"{clip.seconds:.1f} s, {clip.fps:g} frames a second"]
    try:
        found = json.loads(clip.source)
        begin = datetime.fromtimestamp(found["from"] / 1e9, timezone.utc)
        who = f"{found['stream']}, track {found['track']}"
        lines.append(f"alert {found['alert']}: {who}, {begin:%Y-%m-%d %H:%M:%S} UTC")
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        lines[0] += f", subject {clip.subject}" if clip.subject else ""
        lines += [clip.source[:200]] if clip.source else []
    return lines


def _text(path: Path | str) -> str:
    """A path as text that can be written, whatever bytes it consists of."""
    return os.fsencode(path).decode(errors="replace")
