"""`haad-edge train-motion`, `haad-edge motion-report` and `haad-edge support grow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.commands.console import err, need, number, out, say
from edge.outputs import ready_folder

PANEL = "Make a model"
ModelOption = Annotated[Path, typer.Option("--motion", help="the motion model: what train-motion wrote")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("train-motion", rich_help_panel=PANEL)(train_motion)
    app.command("motion-report", rich_help_panel=PANEL)(motion_report)
    _group(app, "support").command("grow")(support_grow)


def _group(app: typer.Typer, name: str) -> typer.Typer:
    """Return the group of commands of that name, which another package may have added already."""
    for known in app.registered_groups:
        if known.name == name and known.typer_instance is not None:
            return known.typer_instance
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


def train_motion(
    data: Annotated[Path, typer.Option(help="DIR/<category>/*.npz, or DIR/<set>/<category>/*.npz")],
    output: Annotated[Path, typer.Option("--out", help="folder to write the motion model to")],
    config: Annotated[Path | None, typer.Option(help="YAML with training settings")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
    seed: Annotated[int | None, typer.Option(help="random seed")] = None,
) -> None:
    """Train a model that generates clips from clips. After an interruption, run the same command again to go on."""
    need("train", "torch", "safetensors")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from trainer.cli import exit_when_stopped
    from trainer.motion.config import load_motion_config
    from trainer.motion.fit import MotionTrainer, load_clip_sets, make_model
    from trainer.motion.model import MANIFEST
    from trainer.progress import checkpoint_path

    ready_folder(output)
    checkpoint = checkpoint_path(output, MANIFEST)
    settings = load_motion_config(config, steps=steps, seed=seed)
    trainer = MotionTrainer(load_clip_sets(data, settings, say), settings)
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    say(f"{len(trainer.clips)} clips to train on, {len(trainer.test)} clips of held-out people to validate on")
    columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeRemainingColumn(), console=out) as bar:
        task = bar.add_task("train", total=settings.steps, loss=float("nan"))

        def report(step: int, loss: float, news: str) -> None:
            bar.update(task, completed=step, loss=loss)
            if news:
                bar.console.print(f"step {step}: {news}")

        with exit_when_stopped(checkpoint) as stop:
            trainer.run(report, checkpoint, stop)
    model = make_model(trainer, output)
    checkpoint.unlink(missing_ok=True)
    say(f"{output}: {model.name}, trained in {model.manifest.training['minutes']} minutes")
    say(f"next: haad-edge motion-report --motion {output} --data {data} --out {output / 'report'}")


def motion_report(
    motion: ModelOption,
    data: Annotated[Path, typer.Option(help="the folder it was trained on, with the clips held out")],
    output: Annotated[Path, typer.Option("--out", help="folder for quality.json and the pictures")],
    clips: Annotated[int, typer.Option(min=2, help="held-out clips to generate from, at most")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="random seed")] = 0,
) -> None:
    """Measure generated clips beside real ones, for people the model never saw, and draw some of both."""
    need("train", "torch", "safetensors", "scipy")
    from trainer.motion.model import open_motion
    from trainer.motion.report import write_report

    ready_folder(output)
    out.print(write_report(open_motion(motion), data, output, most=clips, seed=seed))
    say(f"{output}: quality.json, and {len(list(output.glob('*.svg')))} pictures")


def support_grow(
    folder: Annotated[Path, typer.Argument(help="support/<category>/*.npz")],
    motion: Annotated[Path | None, typer.Option(help="the motion model: what train-motion wrote")] = None,
    per_clip: Annotated[int, typer.Option(min=1, max=99, help="generated clips beside each real one")] = 1,
    strength: Annotated[float, number("how much to change what is not kept; 1: all of it", min=0.01, max=1)] = 0.15,
    keep: Annotated[float, number("share of the clip to keep as it is, from its beginning", min=0, max=0.9)] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="random seed")] = 0,
    output: Annotated[
        Path | None, typer.Option("--out", help="write the grown folder here, and leave the original as it is")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="remove the generated clips again")] = False,
) -> None:
    """Add generated clips to a support folder, replacing those added before. Real clips are never touched."""
    need("train", "torch", "safetensors", "scipy")
    from trainer.motion.generate import Recipe, grow, ungrow

    if remove:
        say(f"{folder}: {ungrow(folder)} generated clips removed")
        return
    if motion is None:
        raise typer.BadParameter("name the motion model to generate with", param_hint="--motion")
    from trainer.motion.model import open_motion

    ready_folder(output)
    model = open_motion(motion)
    done = grow(folder, model, per_clip, seed=seed, recipe=Recipe(strength=strength, keep=keep), out=output)
    for problem in done.problems:
        say(f"left out: {problem}", to=err)
    for name, count in done.written.items():
        say(f"{name}: {count} generated clips")
    say(f"{output or folder}: {sum(done.written.values())} clips by {model.name}; --remove removes them again")
