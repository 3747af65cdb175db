"""`haad-edge axes`: checks whether a folder's clips are the right way round, and writes them in other axes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.console import err, say

if TYPE_CHECKING:
    from edge.clip import Clip
    from edge.skeleton import Float


def axes(
    data: Annotated[Path, typer.Argument(help="DIR/<category>/*.npz")],
    to: Annotated[
        str | None, typer.Option(help="the old axes that become x, y and z, such as x,-y,-z; none: only check")
    ] = None,
    output: Annotated[Path | None, typer.Option("--out", help="new folder to write the clips into")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--category", help="convert only this category; repeatable; none: all")
    ] = None,
) -> None:
    """Check whether clips are the right way round: y up, right-handed. With --to and --out, convert them."""
    import numpy as np

    from edge.clip import categories, iter_clips, save_clip
    from edge.errors import ClipError
    from edge.ingest.posture import clip_cues, faults, turned, unsure
    from edge.outputs import ready_folder

    if (to is None) != (output is None):
        raise typer.BadParameter("--to and --out go together", param_hint="--to")
    if output is not None and output.resolve().is_relative_to(data.resolve()):
        raise typer.BadParameter("name a folder outside that of the clips", param_hint="--out")
    if output is not None and output.is_dir() and any(output.iterdir()):
        raise typer.BadParameter(f"{output} is not empty: name a new folder", param_hint="--out")
    columns, signs = parse_axes(to or "x,y,z")
    folders = categories(data)
    if unknown := [name for name in only or () if name not in folders]:
        there = ", ".join(folders)
        raise typer.BadParameter(f"there is no '{unknown[0]}'; there are {there:.300}", param_hint="--category")
    ready_folder(output)
    clips: list[tuple[str, str, Clip]] = []
    for category, files in folders.items():
        for path, clip in iter_clips(files):
            if isinstance(clip, ClipError):
                say(f"left out: {clip}", to=err)
                continue
            if not only or category in only:
                if columns[2] != 2 and not clip.joints[..., 2].any():
                    raise ClipError(
                        f"{path}: has no depth",
                        why=f"--to {to} would use its {'xyz'[columns[2]]} as depth",
                        fix="for clips without depth change only x and y, for example --to x,-y,z",
                    )
                clip = turned(clip, columns, signs)
            clips.append((category, path.name, clip))
    if not clips:
        raise ClipError(f"{data}: no clip can be read")
    found: dict[str, Float] = {}
    for category, name, clip in clips:
        if output is not None:
            save_clip(output / category / name, clip)
        found[category] = found.get(category, 0) + clip_cues(clip)[0]
    wrong = [f"category '{name}': {why}; --category converts only it" if name else why for name, why in faults(found)]
    fine = unsure(np.sum(list(found.values()), axis=0)) or "nothing seems wrong with their axes"
    for line in wrong or [fine]:
        say(f"{output or data}: {len(clips)} clips, {line}")


def parse_axes(text: str) -> tuple[list[int], list[int]]:
    """'x,-y,-z' → the old axis that each new one is, and its sign. Raises typer.BadParameter."""
    names = [a.strip() for a in text.split(",")]
    plain = [a.lstrip("+-") for a in names]
    if sorted(plain) != ["x", "y", "z"] or any(len(a) - len(p) > 1 for a, p in zip(names, plain, strict=True)):
        raise typer.BadParameter(f"'{text}' is not x, y and z in some order, each with a sign", param_hint="--to")
    return ["xyz".index(a) for a in plain], [-1 if a.startswith("-") else 1 for a in names]
