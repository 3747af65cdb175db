"""Runs `haad-edge evaluate --streaming`: measures how good a bundle's alerts are on long streams."""

from __future__ import annotations

import json
from pathlib import Path

from edge.bundle import Bundle
from edge.commands.console import out, say
from edge.engine import open_engine
from edge.errors import ClipError
from edge.outputs import save_text
from edge.settings import load_settings
from trainer.datasets import ClipSet
from trainer.protocols import Protocol
from trainer.streaming.measure import stream_outcomes
from trainer.streaming.report import as_json, summarise, tables, write_page
from trainer.streaming.takes import StreamPlan


def check(clips: ClipSet, protocol: Protocol, shots: list[int], normals: int) -> None:
    """Raises ClipError, before the work, if nothing could be watched; it names the option or the clips to change."""
    names, person_of = clips.names, clips.subjects
    people = sorted(set(person_of[protocol.test].tolist()))
    most, support = 0, 0
    for person in people:
        mine = protocol.test & (person_of == person)
        there = set(clips.label[mine].tolist())
        most = max(most, len(there))
        pools = (protocol.pool & (person_of != person) & (clips.label == g) for g in there)
        enough = sorted((int(pool.sum()) for pool in pools), reverse=True)[:normals]
        if normals < len(there):
            support = max(support, min(enough))
    what = "nothing could be watched"
    if most < 2:
        raise ClipError(
            what,
            why="nobody who is judged has clips of two categories: one to be normal, one to be the anomaly",
            fix=f"add clips of one person in more of the {len(names)} categories",
        )
    if most <= normals:
        raise ClipError(
            what,
            why=f"--normals is {normals}, but nobody who is judged has clips of more than {most} categories, and "
            "one of them must be left to be the anomaly",
            fix=f"use --normals {most - 1} or less",
        )
    if support < min(shots):
        raise ClipError(
            what,
            why=f"{min(shots)} support clips of each normal category are needed from other people, and there are at "
            f"most {support}",
            fix=f"use --shots {support}" if support else "add clips of the same categories by other people",
        )


def evaluate_streams(
    data: Path,
    clips: ClipSet,
    protocol: Protocol,
    bundle: Bundle,
    *,
    plan: StreamPlan,
    shots: list[int],
    draws: int,
    normals: int,
    seed: int,
    floor: bool,
    to_json: Path | None,
    report: Path | None,
    note: str,
) -> None:
    """Measure the bundle on streams, print the result, and write what was asked for.

    The alert logic is that of the settings in force here. Raises ClipError if nothing can be watched.
    """
    settings = load_settings()
    check(clips, protocol, shots, normals)
    outcomes = list(
        stream_outcomes(
            clips,
            protocol,
            bundle,
            open_engine(bundle, max_batch=256),
            plan=plan,
            shots=shots,
            draws=draws,
            normals=normals,
            seed=seed,
            settings=settings,
            floor=floor,
            report=lambda person: say(f"watching person {person} …"),
        )
    )
    if not outcomes:
        raise ClipError(
            "nothing could be watched",
            why=f"nobody has {normals} categories of which other people have {min(shots)} support clips each",
            fix="lower --normals or --shots",
        )
    found = summarise(outcomes)
    for table in tables(found, f"streams of {data}, {protocol.name}"):
        out.print(table)
    about = (
        f"{protocol.about}. {plan.clean:g} s of normal activity by one person before {'a bad' if plan.faults else 'a'} "
        f"camera, then {plan.anomalies} anomalies of other categories; {normals} normal at a time, {draws} support "
        f"draws, seed {seed}"
    )
    say(about)
    say(f"note: {note or 'the manifest names neither these clips nor a set of this name as trained on'}")
    if to_json:
        figures = as_json(found) | {"data": str(data), "model": bundle.model, "seed": seed, "about": about}
        save_text(to_json, json.dumps(figures, indent=2) + "\n")
    if report:
        page = write_page(report, found, title=f"{bundle.model} on streams of {data.name}", about=about, note=note)
        say(f"report: {page}")
