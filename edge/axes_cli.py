"""`haad-edge axes`: whether a folder's clips are the right way round, and the same clips in other axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.console import err, say

if TYPE_CHECKING:
    from edge.clip import Clip


def axes(
    data: Annotated[Path, typer.Argument(help="DIR/<category>/*.npz")],
    to: Annotated[
        str | None, typer.Option(help="what becomes x, y and z, as x,-y,-z; none: only say what seems wrong")
    ] = None,
    output: Annotated[Path | None, typer.Option("--out", help="the folder to write the turned clips into")] = None,
) -> None:
    """Whether clips are the right way round: y up, right-handed. With --to and --out, the same clips in other axes."""
    from edge.clip import categories, iter_clips, save_clip
    from edge.errors import ClipError
    from edge.outputs import ready_folder
    from edge.posture import of_clips

    if (to is None) != (output is None):
        raise typer.BadParameter("--to and --out go together", param_hint="--to")
    if output is not None and output.resolve() == data.resolve():
        raise typer.BadParameter("clips are not written over themselves: name another folder", param_hint="--out")
    columns, signs = parse_axes(to or "x,y,z")
    ready_folder(output)
    found: list[Clip] = []
    for category, files in categories(data).items():
        for path, clip in iter_clips(files):
            if isinstance(clip, ClipError):
                say(f"left out: {clip}", to=err)
                continue
            found.append(replace(clip, joints=clip.joints[..., columns] * signs))
            if output is not None:
                save_clip(output / category / path.name, found[-1])
    if not found:
        raise ClipError(f"{data}: no clip can be read")
    wrong = of_clips(found)
    say(f"{output or data}: {len(found)} clips, {wrong or 'nothing seems wrong with their axes'}")


def parse_axes(text: str) -> tuple[list[int], list[int]]:
    """'x,-y,-z' → where each axis comes from, and its sign. Raises typer.BadParameter."""
    names = [a.strip() for a in text.split(",")]
    plain = [a.lstrip("+-") for a in names]
    if sorted(plain) != ["x", "y", "z"] or any(len(a) - len(p) > 1 for a, p in zip(names, plain, strict=True)):
        raise typer.BadParameter(f"'{text}' is not x, y and z in some order, each with a sign", param_hint="--to")
    return ["xyz".index(a) for a in plain], [-1 if a.startswith("-") else 1 for a in names]
