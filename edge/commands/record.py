"""`haad-edge record` and `haad-edge replay`."""

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
    output: Annotated[Path, typer.Option("--out", help="the recording to write")],
    source: Annotated[str, typer.Option("--from", help="the engine's poses_out, or where trackers send")] = POSES_OUT,
    seconds: Annotated[float | None, number("from the first message on; none: until Ctrl-C", min=0.1)] = None,
    stream: Annotated[str, typer.Option(help="only this stream; none: all")] = "",
    max_mib: Annotated[int, typer.Option(min=1, help="end when the file is so large")] = 1024,
    wait: Annotated[
        float | None, number("give up if no first message comes for so many seconds; none: never", min=0)
    ] = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Write down what cameras send, as it comes. For calibrate, replay, and support add --from."""
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
        say(f"nothing was recorded, and {output} is not kept; {why}")
        return
    say(f"{output}: {file.messages} messages, {file.bytes:,} bytes, of {len(recorder.streams)} streams; {why}")
    if recorder.ledger.lost or recorder.strange:
        say(f"{recorder.ledger.lost} messages never came, {recorder.strange} were no pose messages", to=err)


def replay(
    recording: Annotated[Path, typer.Argument(help="what record wrote")],
    to: Annotated[str, typer.Option(help="where the engine listens")] = "pub+connect:tcp://127.0.0.1:5555",
    speed: Annotated[float, number("2: twice as fast; 0: as fast as it goes, best with push", min=0, step=0.001)] = 1.0,
    wait: Annotated[float, number("seconds to wait for an engine", min=0)] = 10.0,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Send a recording again, with its own times: the same recording gives the same alerts."""
    from edge.recordings.record import replay as play
    from edge.recordings.recording import read

    reader = read(recording)
    sent = play(reader, to, speed=speed, wait=wait, keys=keys, allow_remote=allow_remote)
    say(f"{recording}: {sent} messages sent")
    if reader.problem:
        say(reader.problem, to=err)


@contextlib.contextmanager
def subscribed(source: str, stream: str, keys: Path | None, allow_remote: bool) -> Iterator[ZmqSource]:
    """A source of the poses at an address, of one stream or all; closed afterwards. Raises SettingsError."""
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
