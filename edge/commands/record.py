"""`haad-edge record` and `haad-edge replay`: record pose messages, and send them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.console import Keys, Remote, err, number, say, signals

if TYPE_CHECKING:
    from edge.ingest.source import ZmqSource

POSES_OUT = "sub+connect:tcp://127.0.0.1:5558"


def record(
    output: Annotated[Path, typer.Option("--out", help="file to write")],
    source: Annotated[
        str, typer.Option("--from", help="the engine's poses_out, or the address that trackers send to")
    ] = POSES_OUT,
    seconds: Annotated[
        float | None, number("how long to record, from the first message on; none: until Ctrl-C", min=0.1)
    ] = None,
    stream: Annotated[str, typer.Option(help="record only this stream; none: all")] = "",
    max_mib: Annotated[int, typer.Option(min=1, help="stop when the file has this size in MiB")] = 1024,
    wait: Annotated[
        float | None, number("give up if no message comes within so many seconds; none: never", min=0)
    ] = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Record what cameras send, as it arrives, for calibrate, replay, and support add --from."""
    from edge.recordings.record import Recorder
    from edge.recordings.recording import write

    with (
        signals() as call_on_signal,
        subscribed(source, stream, keys, allow_remote) as poses,
        write(output) as file,
    ):
        recorder = Recorder(file, stream, lambda text: say(text, to=err))
        call_on_signal(recorder.stop)
        say(f"recording {source}", to=err)
        why = recorder.run(poses, seconds=seconds, wait=wait, most=max_mib << 20)
    if not file.messages:
        say(f"nothing was recorded, so {output} was not kept; {why}")
        return
    say(f"{output}: {file.messages} messages, {file.bytes:,} bytes, of {len(recorder.streams)} streams; {why}")
    if recorder.ledger.lost or recorder.foreign:
        say(f"{recorder.ledger.lost} messages were lost, {recorder.foreign} were not pose messages", to=err)


def replay(
    recording: Annotated[Path, typer.Argument(help="recording to send, as haad-edge record wrote it")],
    to: Annotated[str, typer.Option(help="address that the engine listens on")] = "pub+connect:tcp://127.0.0.1:5555",
    speed: Annotated[
        float, number("1: as recorded; 2: twice as fast; 0: as fast as possible, best with push", min=0, step=0.001)
    ] = 1.0,
    wait: Annotated[float, number("seconds to wait for an engine", min=0)] = 10.0,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Send a recording again with its original times, so that it gives the same alerts every time."""
    from edge.recordings.record import replay as play
    from edge.recordings.recording import read

    reader = read(recording)
    sent = play(reader, to, speed=speed, wait=wait, keys=keys, allow_remote=allow_remote)
    say(f"{recording}: {sent} messages sent")
    if reader.problem:
        say(reader.problem, to=err)


@contextlib.contextmanager
def subscribed(source: str, stream: str, keys: Path | None, allow_remote: bool) -> Iterator[ZmqSource]:
    """Open a source of the poses at an address, of one stream or all (""); closed afterwards. Raises SettingsError."""
    import zmq

    from edge.ingest.source import ZmqSource
    from edge.network.endpoint import Endpoint
    from edge.network.keys import open_keys

    mine, where = open_keys(keys), Endpoint.parse(source, ("sub", "pull"), example=POSES_OUT)
    where.check_reach(allow_remote, mine)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with contextlib.ExitStack() as stack:
        stack.callback(context.term)
        if mine and where.mode == "bind":
            stack.enter_context(mine.guard(context))
        poses = ZmqSource(context, [where], 100_000, mine, f"pose/{stream}".encode())
        stack.callback(poses.close)
        yield poses
