"""`haad-edge listen`: what the engine says, a line each; and whether it is there at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

from edge.client import AlertSubscriber
from edge.console import err, out, say
from edge.events import Event, Status
from edge.report import line


def listen(
    subscriber: AlertSubscriber,
    *,
    as_json: bool,
    status: bool,
    count: int,
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Print events until `count` are printed, or nothing was for `timeout` seconds.

    Of the heartbeat, unless `status`, only what changes: that the engine is gone, degraded, or back.
    """
    state, printed, last = "online", 0, clock()
    while timeout is None or clock() - last < timeout:
        event = subscriber.receive(None if timeout is None else max(0.0, timeout - (clock() - last)))
        if event is None:
            break
        if isinstance(event, Status):
            changed, state = event.state != state, event.state
            if not (status or changed):
                continue
            if not status:
                _print(event, as_json)
                continue
        _print(event, as_json)
        subscriber.commit()
        while subscriber.gaps:
            say(str(subscriber.gaps.popleft()), style="yellow", to=err)
        last, printed = clock(), printed + 1
        if printed == count:
            break


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"kind": type(event).__name__.lower(), **asdict(event)}), flush=True)
    else:
        out.print(line(event), soft_wrap=True)
