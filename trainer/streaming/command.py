"""`haad-edge evaluate --streaming`: what the alerts of a bundle are worth on long streams."""

from __future__ import annotations

import json
from pathlib import Path

from edge.bundle import Bundle
from edge.console import out, say
from edge.engine import open_engine
from edge.settings import load_settings
from trainer.datasets import ClipSet
from trainer.protocols import Protocol
from trainer.streaming.measure import stream_outcomes
from trainer.streaming.report import as_json, summarise, tables, write_page
from trainer.streaming.takes import StreamPlan


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
    """Measure and show it; the alert logic is that of the settings in force here."""
    settings = load_settings()
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
        say(
            "nothing could be watched: a person needs clips of two categories, one of them with support clips of others"
        )
        return
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
        to_json.parent.mkdir(parents=True, exist_ok=True)
        figures = as_json(found) | {"data": str(data), "model": bundle.model, "seed": seed, "about": about}
        to_json.write_text(json.dumps(figures, indent=2) + "\n")
    if report:
        page = write_page(report, found, title=f"{bundle.model} on streams of {data.name}", about=about, note=note)
        say(f"report: {page}")
