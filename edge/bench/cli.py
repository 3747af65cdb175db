"""The command `haad-edge bench`: measures how fast the engine is on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli import MODEL, BundleOption
from edge.commands.console import number, out, say
from edge.errors import SettingsError
from edge.outputs import ready_file, save_text

SECTIONS = ("start", "sustained", "ceiling", "stages", "tracks")
NAMED = ("soak",)
"""Sections that are measured only if named, since they take long."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=MODEL)(bench)


def bench(
    cameras: Annotated[int, typer.Option(min=1, max=65536, help="simulated cameras")] = 64,
    people: Annotated[int, typer.Option(min=1, max=200, help="people in view of each camera at all times")] = 4,
    fps: Annotated[float, number("frames a second of each camera", min=1, max=240)] = 30.0,
    seconds: Annotated[float, number("duration of the paced load", min=1)] = 30.0,
    stride: Annotated[float, number("seconds between two windows of a person", min=0.01, max=10)] = 0.25,
    max_batch: Annotated[int, typer.Option(min=1, max=4096, help="most windows per inference")] = 64,
    engine: Annotated[str, typer.Option(help="inference back end")] = "onnx",
    threads: Annotated[int, typer.Option(min=1, max=64, help="threads of the back end")] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="rounds of ceiling and of tracks")] = 3,
    most_tracks: Annotated[
        int, typer.Option(min=10, max=100_000, help="tracks: measure from 10 tracks up to this many")
    ] = 10_000,
    scores: Annotated[bool, typer.Option(help="listen to every window's score, or to alerts alone")] = True,
    only: Annotated[str, typer.Option(help="sections, separated by commas: " + ", ".join((*SECTIONS, *NAMED)))] = "",
    capture: Annotated[float, number("soak: seconds of camera time to send", min=1)] = 3600.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of the simulated people")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a picture to this file, SVG")] = None,
    bundle: BundleOption = None,
) -> None:
    """Measure the engine on this machine: simulated cameras in one process, a real engine in another.

    start: seconds to the first score. sustained: the load at its own pace, what is lost and how late results come.
    ceiling: the highest rate end to end, beside that of the engine alone. stages: CPU by stage. tracks: cost and memory
    from 10 tracks on. soak, only if named: an hour of camera time as fast as possible, and memory.
    """
    import json

    from edge.bench.measure import measure
    from edge.bench.picture import picture
    from edge.bench.report import tables
    from edge.bench.traffic import Load

    chosen = tuple(s.strip() for s in only.split(",")) if only else SECTIONS
    if odd := [s for s in chosen if s not in (*SECTIONS, *NAMED)]:
        raise SettingsError(f"no section called {odd[0]!r:.40}", fix=f"use some of: {', '.join((*SECTIONS, *NAMED))}")

    ready_file(json_file, "--json")
    ready_file(plot, "--plot")

    def progress(text: str) -> None:
        print(f"haad-edge: {text}", file=sys.stderr, flush=True)

    report: dict[str, Any] = measure(
        Load(cameras, people, fps, seed=seed),
        sections=chosen,
        seconds=seconds,
        stride=stride,
        max_batch=max_batch,
        engine=engine,
        threads=threads,
        rounds=rounds,
        most_tracks=most_tracks,
        scores=scores,
        capture=capture,
        bundle=bundle,
        progress=progress,
    )
    for table in tables(report):
        out.print(table)
    for path, text in ((json_file, json.dumps(report, indent=1) + "\n"), (plot, picture(report) if plot else "")):
        if path:
            save_text(path, text)
            say(f"written: {path}")
