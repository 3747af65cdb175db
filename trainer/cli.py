"""`haad-edge train` and `haad-edge evaluate`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edge.console import need, out, say


def register(app: typer.Typer) -> None:
    """Add this house's commands."""

    @app.command(rich_help_panel="Make a model")
    def train(
        data: Annotated[Path, typer.Option(help="DIR/<category>/*.npz, or DIR/<set>/<category>/*.npz")],
        output: Annotated[Path, typer.Option("--out", help="the bundle to write")],
        config: Annotated[Path | None, typer.Option(help="YAML with training settings")] = None,
        steps: Annotated[int | None, typer.Option(help="steps of the optimiser")] = None,
        seed: Annotated[int | None, typer.Option(help="random seed")] = None,
    ) -> None:
        """Train an encoder on folders of clips. Run it again to go on after an interruption."""
        need("train", "torch", "safetensors", "sklearn")
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from trainer.config import load_config
        from trainer.fit import CHECKPOINT, Trainer, load_sets, make_bundle

        settings = load_config(config, steps=steps, seed=seed)
        sets = load_sets(data, settings)
        for s in sets:
            say(f"{s.name}: {len(s.clips)} clips, {len(s.names)} categories, {len(set(s.subjects))} subjects")
        trainer = Trainer(sets, settings)
        checkpoint = output / CHECKPOINT
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
        with Progress(*columns, TimeRemainingColumn(), console=out) as bar:
            task = bar.add_task("train", total=settings.steps, loss=float("nan"))

            def report(step: int, loss: float, news: str) -> None:
                bar.update(task, completed=step, loss=loss)
                if news:
                    bar.console.print(f"step {step}: AUROC on held-out subjects  {news}")

            trainer.run(report, checkpoint)
        say("calibrating …")
        bundle = make_bundle(trainer, output)
        checkpoint.unlink(missing_ok=True)
        say(f"{output}: {bundle.model}, trained in {bundle.manifest.training['minutes']} minutes")
        say(f"next: haad-edge build {output} --target onnx")

    @app.command(rich_help_panel="Make a model")
    def evaluate(
        data: Annotated[Path, typer.Option(help="DIR/<category>/*.npz")],
        shots: Annotated[int, typer.Option(min=1, help="support clips per category")] = 3,
        split: Annotated[str, typer.Option(help="subject: support and test from different people; random")] = "subject",
        draws: Annotated[int, typer.Option(min=2, help="support draws; they give the interval")] = 20,
        seed: Annotated[int, typer.Option(help="random seed of the draws")] = 0,
        bundle: Annotated[Path | None, typer.Option(help="the bundle to evaluate; none: base")] = None,
        floor: Annotated[bool, typer.Option(help="also measure what no learning at all would do")] = True,
        to_json: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    ) -> None:
        """How well K clips of each category tell it from the others: AUROC per category and mean, beside the floor."""
        need("train", "sklearn", *["torch"] * floor)
        if split not in ("subject", "random"):
            raise typer.BadParameter("use 'subject' or 'random'", param_hint="--split")
        import numpy as np

        from edge.bundle import open_bundle
        from edge.clip import load_clip
        from edge.embedding import embed_folder
        from edge.engine import open_engine
        from edge.score import match
        from trainer.evaluate import few_shot, report_table

        model = open_bundle(bundle)
        clips = embed_folder(data, model, open_engine(model, threads=2))
        for problem in clips.problems:
            say(f"left out: {problem}")
        embeddings = {model.model: clips.embedding}
        if floor:
            from trainer.baselines import raw_dct

            embeddings["floor: raw DCT"] = raw_dct([load_clip(p) for p in clips.path])
        results = {
            name: few_shot(
                embedding,
                np.array(clips.category),
                np.array(clips.subject),
                shots=shots,
                draws=draws,
                split=split,
                seed=seed,
                distance=partial(match, temperature=model.manifest.temperature),
            )
            for name, embedding in embeddings.items()
        }
        out.print(report_table(results, f"AUROC on {data}, {shots}-shot, split by {split}"))
        say(f"{len(clips.path)} clips, {draws} support draws, seed {seed}; in brackets 95 % of the draws")
        if to_json:
            found = {"data": str(data), "model": model.model, **results[model.model].as_dict()}
            if floor:
                found["floor"] = results["floor: raw DCT"].as_dict()
            to_json.parent.mkdir(parents=True, exist_ok=True)
            to_json.write_text(json.dumps(found, indent=2) + "\n")

    @app.command(rich_help_panel="Make a model")
    def convert(
        source: Annotated[Path, typer.Argument(help="the data set as its authors released it")],
        form: Annotated[str, typer.Option("--from", help="humanact12 (folder or ACTOR's pickle) or utd_mhad")],
        output: Annotated[Path, typer.Option("--out", help="folder to write DIR/<category>/*.npz into")],
    ) -> None:
        """Turn a released data set into clip files."""
        need("train", "scipy")
        from edge.clip import save_clip
        from trainer.released import read_humanact12, read_utd_mhad

        readers = {"humanact12": read_humanact12, "utd_mhad": read_utd_mhad}
        if form not in readers:
            raise typer.BadParameter(f"use one of: {', '.join(readers)}", param_hint="--from")
        found = readers[form](source)
        for clip, path, label in zip(found.clips, found.paths, found.label, strict=True):
            save_clip(output / found.names[label] / f"{path.stem}.npz", clip)
        say(f"{output}: {len(found.clips)} clips in {len(set(found.label.tolist()))} categories")
