"""`haad-edge train` and `haad-edge evaluate`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edge.commands.console import need, number, out, say
from edge.errors import command
from edge.outputs import ready_file, ready_folder, save_text


def require_one_of(option: str, given: str, *known: str) -> None:
    """Raises BadParameter if the value is none of the known ones."""
    if given not in known:
        raise typer.BadParameter(f"use {' or '.join(repr(k) for k in known)}", param_hint=option)


def parse_numbers(option: str, given: str) -> list[int]:
    """Parse '1,3,5' into numbers, sorted, each once. Raises BadParameter for anything else."""
    try:
        found = sorted({int(part) for part in given.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise typer.BadParameter(f"{given!r} is not a list of whole numbers from 1 on, as in 1,3,5", param_hint=option)
    return found


@contextlib.contextmanager
def exit_when_stopped(checkpoint: Path, enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether to stop. A training that stopped exits with 130, and says how to go on."""
    from trainer.progress import Stopped, stop_on_signal

    try:
        with stop_on_signal(enabled) as stop:
            yield stop
    except Stopped as e:
        say(f"stopped at step {e}: {checkpoint} is written; run the same command again to go on from it")
        raise typer.Exit(130) from None


def register(app: typer.Typer) -> None:
    """Add the commands that train and evaluate models, and that convert data sets."""

    @app.command(rich_help_panel="Make a model")
    def train(
        data: Annotated[Path, typer.Option(help="DIR/<category>/*.npz, or DIR/<set>/<category>/*.npz")],
        output: Annotated[Path, typer.Option("--out", help="folder to write the bundle to")],
        config: Annotated[Path | None, typer.Option(help="YAML with training settings")] = None,
        steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
        seed: Annotated[int | None, typer.Option(help="random seed")] = None,
    ) -> None:
        """Train an encoder on folders of clips. After an interruption, run the same command again to go on."""
        need("train", "torch", "safetensors", "sklearn", "lightning_fabric")
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from edge.bundle import MANIFEST, measured
        from edge.ingest.posture import of_clips
        from trainer.config import load_config
        from trainer.fit import Trainer, load_sets, make_bundle, not_validated
        from trainer.parallel import explain_lost_process
        from trainer.progress import checkpoint_path

        ready_folder(output)
        checkpoint = checkpoint_path(output, MANIFEST)
        settings = load_config(config, steps=steps, seed=seed)
        hints: list[str] = []
        sets = load_sets(data, settings, hints.append)
        trainer = Trainer(sets, settings)
        if trainer.chief:
            for line in hints:
                say(line)
            for s in sets:
                say(f"{s.name}: {len(s.clips)} clips, {len(s.names)} categories, {len(set(s.subjects))} subjects")
                if why := of_clips(s.clips):
                    say(f"{s.name}: {why}")
            for line in not_validated(sets, settings.hold_out):
                say(line)
            if checkpoint.exists():
                say(f"going on from {checkpoint}")
            if trainer.fabric.world_size > 1:
                say(f"{trainer.fabric.world_size} processes, {settings.batch // trainer.fabric.world_size} clips each")
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
        with Progress(*columns, TimeRemainingColumn(), console=out, disable=not trainer.chief) as bar:
            task = bar.add_task("train", total=settings.steps, loss=float("nan"))

            def report(step: int, loss: float, news: str) -> None:
                bar.update(task, completed=step, loss=loss)
                if news:
                    bar.console.print(f"step {step}: AUROC on held-out subjects  {news}")

            with exit_when_stopped(checkpoint, enabled=trainer.fabric.world_size == 1) as stop:
                trainer.run(report, checkpoint, stop)
        if trainer.chief:
            say("calibrating, which takes seconds to minutes …")
            with out.status("calibrating"):
                bundle = make_bundle(trainer, output)
            checkpoint.unlink(missing_ok=True)
            say(f"{output}: {bundle.model}, trained in {bundle.manifest.training['minutes']} minutes")
            for line in measured(bundle.manifest):
                say(line)
            say(f"next: {command('build', output, '--target', 'onnx')}")
        with explain_lost_process(trainer.fabric):
            trainer.fabric.barrier()

    @app.command(rich_help_panel="Make a model")
    def evaluate(
        data: Annotated[Path, typer.Option(help="DIR/<category>/*.npz, or a data set as released")],
        protocol: Annotated[
            str, typer.Option(help="clips, humanact12 or utd_mhad: which clips are support, which are judged")
        ] = "clips",
        shots: Annotated[str, typer.Option(help="support clips per category; or several numbers: 1,3,5,10")] = "3",
        split: Annotated[
            str, typer.Option(help="subject: support and judged clips from different people; or random")
        ] = "subject",
        people: Annotated[
            str | None, typer.Option(help="judge only these subjects, for instance 4,8; the rest are support")
        ] = None,
        fold: Annotated[
            int | None, typer.Option(min=0, max=3, help="treat every 4th category, from this one on, as unseen")
        ] = None,
        draws: Annotated[int, typer.Option(min=2, help="support draws, over which the intervals are taken")] = 20,
        seed: Annotated[int, typer.Option(min=0, help="random seed of the draws")] = 0,
        bundle: Annotated[Path | None, typer.Option(help="the bundle to evaluate; default: base")] = None,
        floor: Annotated[bool, typer.Option(help="also measure the floor: no learning at all")] = True,
        streaming: Annotated[
            bool,
            typer.Option("--streaming", help="instead: long streams with anomalies, through the device's own logic"),
        ] = False,
        minutes: Annotated[
            float, number("--streaming: minutes of normal activity before the anomalies", min=0.2, max=1440)
        ] = 2.0,
        normals: Annotated[int, typer.Option(min=1, help="--streaming: categories that are normal at a time")] = 1,
        faults: Annotated[
            bool, typer.Option("--faults", help="--streaming: add lost frames, changing rates, noise, hidden limbs")
        ] = False,
        recipe: Annotated[str | None, typer.Option(help="paper: also train and measure the published recipe")] = None,
        to_json: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
        report: Annotated[Path | None, typer.Option(help="also write a report: DIR/index.html")] = None,
    ) -> None:
        """Measure how well K clips of each category tell it from the others, beside the floor.

        Prints the AUROC of each category, and the mean.
        """
        need("train", "sklearn", *["torch"] * (floor or recipe is not None))
        require_one_of("--split", split, "subject", "random")
        require_one_of("--recipe", recipe or "paper", "paper")
        ready_file(to_json, "--json")
        ready_folder(report, "--report")
        import numpy as np

        from edge.bundle import open_bundle
        from edge.commands.embedding import embed_whole
        from edge.engine import embed, open_engine
        from edge.ingest.posture import of_clips
        from trainer.evaluate import Method, as_json, mean_cosine, report_table, shots_table
        from trainer.evaluate import evaluate as measure
        from trainer.protocols import PROTOCOLS, make_protocol, paper_clips, read_clips, trained_on

        require_one_of("--protocol", protocol, *PROTOCOLS)
        if protocol == "humanact12" and (split != "subject" or people or fold is not None):
            raise typer.BadParameter(
                "humanact12 fixes the split and the unseen categories: leave out --split, --people and --fold",
                param_hint="--protocol",
            )
        if protocol == "utd_mhad" and split != "subject":
            raise typer.BadParameter("utd_mhad is always split by subject", param_hint="--split")
        if people and split != "subject":
            raise typer.BadParameter("a random split ignores it: leave out --people or --split", param_hint="--people")
        several = parse_numbers("--shots", shots)
        judged = [name.strip() for name in people.split(",")] if people else None
        model = open_bundle(bundle)
        clips, problems = read_clips(data, protocol)
        for problem in problems:
            say(f"left out: {problem}")
        if why := of_clips(clips.clips):
            say(f"{data}: {why}")
        plan = make_protocol(protocol, clips, split=split, people=judged, fold=fold)
        note = trained_on(
            model.manifest.training, clips, plan, data.resolve().name if protocol == "clips" else protocol
        )
        if streaming:
            from trainer.streaming.command import evaluate_streams
            from trainer.streaming.takes import StreamPlan

            evaluate_streams(
                data,
                clips,
                plan,
                model,
                plan=StreamPlan(clean=60 * minutes, faults=faults),
                shots=several,
                draws=draws,
                normals=normals,
                seed=seed,
                floor=floor,
                to_json=to_json,
                report=report,
                note=note,
            )
            return
        category = np.array(clips.names)[clips.label]
        encode = partial(embed, open_engine(model, threads=2))
        methods = [Method(model.model, embed_whole(encode, clips.clips, model.manifest.frames), mean_cosine)]
        if floor:
            from trainer.baselines import raw_dct, raw_distance

            methods.append(Method("floor: raw DCT", raw_dct(clips.clips), raw_distance))
        if recipe:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            from trainer.paper import PaperConfig, embed_paper, mean_euclidean, prepare, train_paper

            prepared, train = prepare(paper_clips(data, protocol, clips)), plan.train
            with Progress(TextColumn("recipe paper: epoch"), MofNCompleteColumn(), BarColumn(), console=out) as bar:
                task = bar.add_task("train", total=PaperConfig().epochs)
                encoder = train_paper(
                    prepared[train], clips.label[train], report=lambda epoch, _: bar.update(task, completed=epoch)
                )
            methods.append(Method("recipe paper", embed_paper(encoder, prepared), mean_euclidean))
        found = measure(methods, category, clips.subjects, plan, shots=several, draws=draws, seed=seed)
        out.print(report_table(found.results[found.main], f"AUROC on {data}, {found.main}-shot, split by {plan.name}"))
        if len(found.results) > 1:
            out.print(shots_table(found, "mean AUROC by number of shots"))
        for k, results in found.results.items():
            for name, why in next(iter(results.values())).left_out.items():
                say(f"not possible with {k} shots: {name}: {why}")
        for k, why in found.impossible.items():
            say(f"not possible with {k} shots: {why}")
        say(f"{plan.name}: {plan.about}")
        say(f"{len(clips.clips)} clips, {draws} support draws, seed {seed}; in brackets 95 % of the draws")
        say(f"note: {note or 'the manifest names neither these clips nor a set of this name as trained on'}")
        if to_json:
            figures = as_json(found) | {"data": str(data), "model": model.model, "trained_on": note}
            save_text(to_json, json.dumps(figures, indent=2) + "\n")
        if report:
            from trainer.report import write_report

            page = write_report(report, found, clips, model=model.model, data=data.resolve().name, note=note)
            say(f"report: {page}")

    @app.command(rich_help_panel="Make a model")
    def convert(
        source: Annotated[Path, typer.Argument(help="the data set, as its authors released it")],
        form: Annotated[str, typer.Option("--from", help="humanact12 (folder or ACTOR's pickle), or utd_mhad")],
        output: Annotated[Path, typer.Option("--out", help="folder to write <category>/*.npz into")],
    ) -> None:
        """Convert a released data set into clip files."""
        need("train", "scipy")
        from edge.clip import save_clip
        from trainer.released import read_humanact12, read_utd_mhad

        readers = {"humanact12": read_humanact12, "utd_mhad": read_utd_mhad}
        if form not in readers:
            raise typer.BadParameter(f"use one of: {', '.join(readers)}", param_hint="--from")
        ready_folder(output)
        found = readers[form](source)
        for clip, path, label in zip(found.clips, found.paths, found.label, strict=True):
            save_clip(output / found.names[label] / f"{path.stem}.npz", clip)
        say(f"{output}: {len(found.clips)} clips in {len(set(found.label.tolist()))} categories")
