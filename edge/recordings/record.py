"""Records what cameras send, and sends it again.

    poses_out, or the trackers themselves ─► record ─► file ─► replay ─► an engine
                                                          └─► calibrate, support add --from

A message is kept as it came, with its time of arrival. When it is played, a message without a capture time gets its
arrival as capture time, as in the engine before. So a recording gives the same alerts whenever and however fast it is
played.
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
"""Seconds between flushes: a crash or a power cut loses at most what came in that time."""
STUCK_S = 60.0
PATIENCE_S = 10.0
REMEDY = (
    "start the engine with --poses-out pub+bind:tcp://127.0.0.1:5558, name another address with --from, or, with "
    "--from sub+bind:…, start the tracker"
)
LIMITS = Limits(16 << 20, 4096)


class Recorder:
    """Writes the messages of a source to a recording, of one stream or all ("").

    `foreign` counts messages that are not pose messages; they are not kept.
    """

    def __init__(self, out: Writer, stream: str = "", tell: Callable[[str], None] = lambda text: None) -> None:
        self.out, self.stream, self.tell = out, stream, tell
        self.ledger, self.streams = Ledger(), dict[str, Stream]()
        self.foreign, self.stopping = 0, False

    def stop(self) -> None:
        """End after the current round of messages; may be called from a signal handler."""
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
        """Record for `seconds` from the first message on, at most `most` bytes; returns the reason why it ended.

        Raises RecordingError if the disk refuses, or if no first message comes within `wait` seconds.
        """
        start, flushed = clock(), clock()
        first: float | None = None
        silent = False
        while not self.stopping:
            messages = source.receive(LOOK_S)
            now, at = clock(), wall()
            for parts in messages:
                if self.out.bytes + sum(map(len, parts)) + HEAD.size + 1 > most:
                    return "the file has reached the size that --max-mib allows"
                if self._keep(parts, at):
                    first = now if first is None else first
            if now - flushed >= FLUSH_S:
                self.out.flush()
                flushed = now
            if first is None and not silent and now - start >= PATIENCE_S:
                silent = True
                self.tell(f"no message has come for {PATIENCE_S:g} s; still waiting: {REMEDY}")
            if first is None and wait is not None and now - start >= wait:
                raise RecordingError(
                    f"no message came within {wait:g} s",
                    why="nobody sends" + (f" stream {self.stream}" if self.stream else "") + " at that address",
                    fix=REMEDY,
                )
            if first is not None and seconds is not None and now - first >= seconds:
                return "the time set by --seconds is over"
        return "stopped"

    def _keep(self, parts: list[bytes], at: int) -> bool:
        """Write a message down if it is a pose message of the wanted stream; returns whether it was."""
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
    """The message as it was, with its arrival as the capture time if it has none."""
    try:
        topic, body = split([item.message])
        value = unpack(body, LIMITS)
    except WireError:
        return item.message  # the engine will refuse it, as it did before
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
    """Yield the recording's messages, each when it is due; `speed` 2 is twice as fast, 0 as fast as they are taken.

    A clock that was set back during the recording causes no pause.
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
    """Send a recording's messages; returns how many. Raises HaadError if nobody listens or accepts any more."""
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
                    why=f"no engine was there within {wait:g} s",
                    fix=f"start one: haad-edge run --support DIR --ingest {other}; if it has keys, name --keys here",
                )
            for item in paced(recording, speed):
                socket.send(stamped(item))
                sent += 1
        except zmq.Again:
            raise HaadError(
                f"{where.address} accepts no more messages",
                why=f"none was accepted for {STUCK_S:g} s, after {sent:,} that were",
                fix="check the engine, then play the recording again",
            ) from None
        finally:
            socket.close(5000)
    return sent
