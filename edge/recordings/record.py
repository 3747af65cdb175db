"""Recording what cameras send, and sending it again.

    poses_out, or the trackers themselves ─► record ─► file ─► replay ─► an engine
                                                          └─► calibrate, support add --from

A message is kept as it came, with its time of arrival. One that names no time of capture is given that time when it
is played, as the engine had given it: so a recording gives the same alerts whenever and however fast it is played.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from edge.errors import HaadError, RecordingError, WireError
from edge.grid import SECOND
from edge.ingest.source import Ledger, Source
from edge.network.endpoint import Endpoint, milliseconds, open_alone
from edge.recordings.recording import HEAD, Reader, Recorded, Writer
from edge.windows import Stream
from edge.wire import Limits, join, split, stream_of, unpack

LOOK_S = 0.2
FLUSH_S = 1.0
"""A crash or a power cut costs what came in so many seconds."""
STUCK_S = 60.0
PATIENCE_S = 10.0
REMEDY = (
    "start the engine with --poses-out pub+bind:tcp://127.0.0.1:5558, name another with --from, or, with --from "
    "sub+bind:…, start the tracker"
)
LIMITS = Limits(16 << 20, 4096)


class Recorder:
    """Writes what a source brings, of one stream or all. `foreign` counts what is no pose message, and is not kept."""

    def __init__(self, out: Writer, stream: str = "", tell: Callable[[str], None] = lambda text: None) -> None:
        self.out, self.stream, self.tell = out, stream, tell
        self.ledger, self.streams = Ledger(), dict[str, Stream]()
        self.foreign, self.stopping = 0, False

    def stop(self) -> None:
        """End after the current look; may be called from a signal handler."""
        self.stopping = True

    def run(
        self,
        source: Source,
        *,
        seconds: float | None,
        wait: float | None,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> str:
        """Record for `seconds` from the first message on, `most` bytes at most; returns why it ended.

        Raises RecordingError when the disk refuses, or no message comes for `wait` seconds at the start.
        """
        start, flushed = clock(), clock()
        first: float | None = None
        silent = False
        while not self.stopping:
            messages = source.receive(LOOK_S)
            now, at = clock(), wall()
            for parts in messages:
                if self.out.bytes + sum(map(len, parts)) + HEAD.size + 1 > most:
                    return "the file has the size that --max-mib allows"
                if self._keep(parts, at):
                    first = now if first is None else first
            if now - flushed >= FLUSH_S:
                self.out.flush()
                flushed = now
            if first is None and not silent and now - start >= PATIENCE_S:
                silent = True
                self.tell(f"nothing has come for {PATIENCE_S:g} s; waiting on: {REMEDY}")
            if first is None and wait is not None and now - start >= wait:
                raise RecordingError(
                    f"nothing came for {wait:g} s",
                    why="nobody sends" + (f" as stream {self.stream}" if self.stream else "") + " at that address",
                    fix=REMEDY,
                )
            if first is not None and seconds is not None and now - first >= seconds:
                return "the time is over"
        return "stopped"

    def _keep(self, parts: list[bytes], at: int) -> bool:
        """Write a message down, unless it is none of ours."""
        try:
            topic, body = split(parts)
            name = stream_of(topic, LIMITS)
            if self.stream and name != self.stream:
                return False
            seq = unpack(body, LIMITS).get("seq")
        except WireError:
            self.foreign += 1
            return False
        if type(seq) is int and seq >= 0:
            self.ledger.enter(self.streams.setdefault(name, Stream(name)), seq)
        self.out.add(parts, at)
        return True


def stamped(item: Recorded) -> bytes:
    """The message as it was, with its arrival as time of capture if it names none."""
    try:
        topic, body = split([item.message])
        value = unpack(body, LIMITS)
    except WireError:
        return item.message  # the engine refuses it again
    if value.get("t") is not None:
        return item.message
    return join(topic.decode(), {**value, "t": item.arrival})


def paced(
    recording: Reader,
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Recorded]:
    """The recording's messages, each when its time has come; `speed` 2 is twice as fast, 0 as fast as they are taken.

    A clock that was set back while recording makes no pause.
    """
    start = clock()
    begin: int | None = None
    for item in recording:
        begin = item.arrival if begin is None else begin
        if speed > 0 and (wait := start + (item.arrival - begin) / SECOND / speed - clock()) > 0:
            sleep(wait)
        yield item


def replay(
    recording: Reader,
    to: str,
    *,
    speed: float = 1.0,
    wait: float = 10.0,
    hwm: int = 1000,
    keys: Path | None = None,
    allow_remote: bool = False,
) -> int:
    """Send a recording's messages; returns how many. Raises HaadError when nobody listens, or takes no more."""
    where = Endpoint.parse(to, ("push", "pub"), example="pub+connect:tcp://127.0.0.1:5555")
    socket, stack = open_alone(where, hwm, keys, allow_remote)
    socket.setsockopt(zmq.SNDTIMEO, round(STUCK_S * 1000))
    sent = 0
    with stack:
        try:
            if not socket.poll(milliseconds(wait), zmq.POLLOUT if where.pattern == "push" else zmq.POLLIN):
                other = f"{'pull' if where.pattern == 'push' else 'sub'}+bind:{where.address}"
                raise HaadError(
                    f"nobody listens at {where.address}",
                    why=f"no engine within {wait:g} s",
                    fix=f"start it: haad-edge run --support DIR --ingest {other}; one with keys lets in only its own",
                )
            for item in paced(recording, speed):
                socket.send(stamped(item))
                sent += 1
        except zmq.Again:
            raise HaadError(
                f"{where.address} takes no more messages",
                why=f"none was taken for {STUCK_S:g} s; {sent:,} were before",
                fix="look at the engine, and play the recording again",
            ) from None
        finally:
            socket.close(5000)
    return sent
