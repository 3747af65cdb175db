"""Defines the command line `haad-edge`: the device's commands, and the entry point where other packages add theirs."""

from __future__ import annotations

import inspect
import io
import os
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from edge import __version__
from edge.commands.axes import axes
from edge.commands.console import Commands, Config, Keys, Remote, err, fail, number, out, say
from edge.commands.view import view
from edge.errors import EngineError, HaadError
from edge.outputs import remedy
from edge.settings import Settings, is_table

DEVICE, TRY, MODEL = "On the device", "Try it", "Look into things"
BundleOption = Annotated[Path | None, typer.Option(help="folder of a trained model; none: the package's base model")]


def register(app: typer.Typer) -> None:
    """Add the commands of this package."""
    app.command(rich_help_panel=DEVICE)(_with_settings(run))
    app.command(rich_help_panel=DEVICE)(listen)
    app.command(rich_help_panel=DEVICE)(keys)
    app.command(rich_help_panel=DEVICE)(calibrate)
    from edge.commands.record import record, replay
    from edge.commands.support import register as register_support

    app.command(rich_help_panel=DEVICE)(record)
    app.command(rich_help_panel=DEVICE)(replay)
    app.command(rich_help_panel=TRY)(demo)
    app.command(rich_help_panel=TRY)(publish)
    app.command(rich_help_panel=MODEL)(view)
    app.command(rich_help_panel=MODEL)(embed)
    app.command(rich_help_panel=MODEL)(axes)
    app.command(rich_help_panel=MODEL)(doctor)
    support = typer.Typer(no_args_is_help=True, help="The support folder: what is normal.")
    support.command("show")(support_show)
    register_support(support)
    app.add_typer(support, name="support", rich_help_panel=DEVICE)
    from edge.bridge.cli import app as bridge

    app.add_typer(bridge, name="bridge", rich_help_panel=DEVICE)


def _with_settings(command: Any) -> Any:
    """Give a command one option per setting, so that the schema is the only list of settings."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    # Leave out options added before: the command line may be built more than once in a process.
    parameters = [p for p in own if p.kind != p.VAR_KEYWORD and p.name not in Settings.model_fields]
    for name, setting in Settings.model_fields.items():
        if is_table(name):
            continue  # tables can only be given in the file
        literal = get_origin(setting.annotation) is Literal
        kinds = [k for k in get_args(setting.annotation) if not literal and k is not type(None)] or [setting.annotation]
        kind = str if get_origin(kinds[0]) is Literal else kinds[0]
        default = "" if setting.default is None else f" [dim](default {setting.default})[/]"
        option = typer.Option(help=(setting.description or "a cap: what exceeds it is dropped and counted") + default)
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
        )
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def run(config: Annotated[Path | None, typer.Option(help="YAML file with settings")] = None, **given: Any) -> None:
    """Watch pose streams and publish alerts, until SIGTERM or Ctrl-C.

    Every setting can also be given in the YAML file under its name, or in the environment as HAAD_NAME.
    The command line takes precedence over the environment, and the environment over the file.
    """
    from edge.service import serve
    from edge.settings import load_settings

    serve(load_settings(given, config))


def publish(
    paths: Annotated[list[Path], typer.Argument(help="clip files, or folders of them")],
    to: Annotated[str, typer.Option(help="address that the engine listens on")] = "pub+connect:tcp://127.0.0.1:5555",
    stream: Annotated[str, typer.Option(help="the camera's name")] = "cam1",
    fps: Annotated[float | None, number("frames a second; none: the first clip's own", min=1, max=240)] = None,
    speed: Annotated[float, number("1: real time; 2: twice as fast; 0: as fast as possible", min=0, step=0.001)] = 1.0,
    people: Annotated[int, typer.Option(min=1, max=64, help="people in view at a time")] = 1,
    seconds: Annotated[
        float | None, number("seconds to play each clip, looping it; none: its length, at least 4", min=0.1)
    ] = None,
    as_one: Annotated[bool, typer.Option(help="one person plays all clips, not a new person for each clip")] = False,
    start: Annotated[int | None, typer.Option(min=0, help="capture time of the first frame in ns; none: now")] = None,
    wait: Annotated[float, number("seconds to wait for an engine", min=0)] = 10.0,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Play clips as a camera would deliver them."""
    from edge.client import PosePublisher
    from edge.recordings.playback import capture_ns, find_clips, paced, play

    shots = play(find_clips(paths), fps=fps, people=people, seconds=seconds, as_one=as_one)
    with PosePublisher(to, stream=stream, keys=keys, allow_remote=allow_remote) as camera:
        camera.wait(wait)
        first, t = start if start is not None else time.time_ns(), 0
        try:
            for shot in paced(shots, speed):
                t = capture_ns(first, shot)
                camera.send(shot.ids, shot.joints, visible=shot.visible, t=t)
        except KeyboardInterrupt:
            pass
        camera.end(t)
        say(f"{stream}: {camera.seq} frames sent")


def listen(
    source: Annotated[
        str, typer.Option("--from", help="address that the engine publishes on")
    ] = "sub+connect:tcp://127.0.0.1:5556",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per line")] = False,
    scores: Annotated[bool, typer.Option(help="print scores too, not only alerts")] = False,
    status: Annotated[bool, typer.Option(help="print the engine's heartbeat too")] = False,
    stream: Annotated[str, typer.Option(help="only streams whose names begin with this")] = "",
    count: Annotated[int, typer.Option(min=0, help="stop after so many messages; 0: never")] = 0,
    timeout: Annotated[float | None, number("stop after so many seconds of silence; none: never", min=0)] = None,
    since: Annotated[int | None, typer.Option(min=0, help="also print alerts on record, from this seq on")] = None,
    cursor: Annotated[
        Path | None, typer.Option(help="file that stores the position, so that the next listen continues there")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(help="address to ask for missed alerts; none: the one that the engine names")
    ] = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Print alerts as they come, and when the engine is gone, degraded or back."""
    from edge.client import AlertSubscriber
    from edge.commands.listen import listen as listen_to

    topics = [f"alert/{stream}"] + [f"score/{stream}"] * scores + ["status"]
    options: dict[str, Any] = {"since": since, "cursor": cursor, "replay": replay}
    with AlertSubscriber(source, topics=topics, keys=keys, allow_remote=allow_remote, **options) as subscriber:
        try:
            listen_to(
                subscriber,
                as_json=as_json,
                status=status,
                count=count,
                timeout=timeout,
                past=since is not None or cursor is not None,
                replay=replay is not None,
            )
        except KeyboardInterrupt:
            pass


def keys(folder: Annotated[Path, typer.Argument(help="folder to make engine/ and client/ in")]) -> None:
    """Make CURVE keys so that poses and alerts can cross a network: one folder for the engine, one for its clients."""
    from edge.network.keys import make_keys

    engine, client = make_keys(folder)
    say(f"{engine}: haad-edge run --keys {engine} …")
    say(f"{client}: haad-edge publish|listen --keys {client} … (copy it to the other host, privately)")


def calibrate(
    support: Annotated[Path, typer.Option(help="the support folder whose limits to adjust")],
    recording: Annotated[
        Path | None, typer.Option("--from", help="recording of a few minutes of normal operation")
    ] = None,
    bundle: BundleOption = None,
    reset: Annotated[bool, typer.Option("--reset", help="remove the folder's calibration")] = False,
    config: Config = None,
) -> None:
    """Fit the limits to one place, from a recording of its normal operation. A running engine takes them into use."""
    from edge.commands.calibrate import command

    command(support, recording, bundle, reset=reset, config=config)


def embed(
    data: Annotated[Path, typer.Argument(help="DIR/<category>/*.npz")],
    output: Annotated[Path, typer.Option("--out", help=".npz file to write: embedding, path, category, subject")],
    bundle: BundleOption = None,
) -> None:
    """Compute one embedding per clip of a folder."""
    import numpy as np

    from edge.bundle import open_bundle, replace_file
    from edge.commands.embedding import embed_folder
    from edge.engine import open_engine
    from edge.outputs import ready_file

    ready_file(output)
    model = open_bundle(bundle)
    found = embed_folder(data, model, open_engine(model, threads=2))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        embedding=found.embedding,
        path=np.array(found.path),
        category=np.array(found.category),
        subject=np.array(found.subject),
    )
    replace_file(output, buffer.getvalue())
    for problem in found.problems:
        say(f"left out: {problem}", to=err)
    say(f"{output}: {len(found.path)} clips, {found.embedding.shape[1]} numbers each, by {model.model}")


def support_show(
    folder: Annotated[Path, typer.Argument(help="support/<category>/*.npz")],
    bundle: BundleOption = None,
    cache: Annotated[Path | None, typer.Option(help="folder of cached features; none: the same as for run")] = None,
    config: Config = None,
) -> None:
    """Show what a support folder holds, and how well its categories can be told apart."""
    from edge.bundle import open_bundle
    from edge.commands.report import support_table
    from edge.engine import open_engine
    from edge.settings import load_settings
    from edge.support.cache import FeatureCache
    from edge.support.enrol import load_support
    from edge.support.transitions import TransitionPlan

    s = load_settings({}, config)
    model = open_bundle(bundle or s.bundle)
    transitions = TransitionPlan(s.normal, s.max_transitions)
    support = load_support(folder, model, open_engine(model), FeatureCache(cache or s.cache), transitions=transitions)
    out.print(support_table(support, model.manifest.temperature))
    for problem in support.problems:
        say(problem, to=err)
    if len(support.transitions):
        pairs = len(support.transitions)
        say(f"transitions known: {pairs} pair{'s' * (pairs > 1)} of categories, each with itself included")
    say(f"version {support.version}, by {model.model}")


def doctor(config: Config = None) -> None:
    """Report what is installed, which engines work here, and what to do about the rest."""
    from edge.commands.doctor import examine, show

    if show(examine(config)):
        raise typer.Exit(1)


def demo(
    data: Annotated[
        Path | None, typer.Option(help="your own clips to play, DIR/<category>/*.npz; none: the generated ones")
    ] = None,
    seconds: Annotated[float, number("how long the demo runs", min=5)] = 60.0,
    speed: Annotated[float, number("1: real time; 2: twice as fast", min=0.1)] = 1.0,
    bundle: BundleOption = None,
) -> None:
    """Run an engine, three simulated cameras and a listener, live in this terminal."""
    from edge.commands.demo import show

    show(data, seconds=seconds, speed=speed, bundle=bundle)


def _version(value: bool) -> None:
    if value:
        say(f"haad-edge {__version__}")
        raise typer.Exit()


def make_app() -> typer.Typer:
    """Build the whole command line from what each installed package registers."""
    app = typer.Typer(
        name="haad-edge",
        cls=Commands,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        add_completion=False,
        help="Few-shot human action anomaly detection on pose streams.",
    )

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None: ...

    for point in sorted(entry_points(group="haad_edge.commands"), key=lambda p: p.name != "edge"):
        point.load()(app)
    return app


def _interrupted(e: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error: while a compiled module is imported, it surfaces as an ImportError."""
    while e is not None and not isinstance(e, KeyboardInterrupt):
        e = e.__cause__ or e.__context__
    return e is not None


def main() -> None:
    """Run the command line for `edge.__main__`; errors that the user can act on are printed without a traceback."""
    # numpy's BLAS would spin on every core over matrices of 15 rows. It reads this when numpy is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no → shows ?
    try:
        make_app()()
    except SystemExit as e:
        if isinstance(e.__context__, BrokenPipeError):  # `| head` closed the pipe; rich and typer call that a failure
            sys.exit(0)
        raise
    except (Exception, KeyboardInterrupt) as e:
        if isinstance(e, KeyboardInterrupt | ImportError | EngineError) and _interrupted(e):
            sys.exit(130)
        if isinstance(e, OSError):
            where = e.filename2 or e.filename
            what, why = (f"{where}: cannot be read or written", e.strerror or str(e)) if where else (str(e), "")
            fix = remedy(e, "check that the path exists, and that you have permission to use it" if where else "")
            fail(HaadError(what, why=why, fix=fix))
        if isinstance(e, HaadError):
            fail(e)
        raise


if __name__ == "__main__":
    main()
