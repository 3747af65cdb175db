"""`haad-edge listen`: prints the engine's messages, one per line, and whether the engine is there at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

from edge.client import AlertSubscriber
from edge.commands.console import err, out, say
from edge.commands.report import line
from edge.errors import WireError
from edge.events import Event, Status
from edge.notices import Notices


def listen(
    subscriber: AlertSubscriber,
    *,
    as_json: bool,
    status: bool,
    count: int,
    timeout: float | None,
    past: bool = False,
    replay: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Print events until `count` were printed, or none was for `timeout` seconds.

    Unless `status`, a status is printed only when something changes: the engine is gone, degraded or back, a stream is
    silent or heard again, or cannot be judged. Gaps are reported as soon as they are known; a message that cannot be
    read is skipped and reported. `past`: the user asked for alerts on record; `replay`: at an address that the user
    named.
    """
    notices = Notices(clock=clock)
    state: tuple[str, list[str], list[str]] = ("online", [], [])
    printed, last = 0, clock()
    while timeout is None or clock() - last < timeout:
        try:
            event = subscriber.receive(None if timeout is None else max(0.0, timeout - (clock() - last)))
        except WireError as e:
            notices.say(f"message dropped: {e}", e.reason)
            continue
        while subscriber.gaps:
            say(str(subscriber.gaps.popleft()), style="yellow", to=err)
        if event is None:
            break
        if isinstance(event, Status):
            if past and event.run:
                past = False
                if why := _no_past(event, replay):
                    say(f"--since and --cursor have no effect: {why}", style="yellow", to=err)
            before, state = state, (event.state, event.silent, event.warnings)
            changed = state != before
            if not (status or changed):
                continue
            if not status:
                _print(event, as_json)
                continue
        _print(event, as_json)
        subscriber.commit()
        last, printed = clock(), printed + 1
        if printed == count:
            break


def _no_past(status: Status, replay: bool) -> str:
    """Why this engine cannot send alerts on record; empty if it can."""
    if not status.journal:
        return "the engine has no journal: it is off, or it cannot be opened"
    if not (status.replay or replay):
        return "the engine's replay, which serves the journal, is off"
    return ""


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"kind": type(event).__name__.lower(), **asdict(event)}), flush=True)
    else:
        out.print(line(event, time.time_ns()), soft_wrap=True)
