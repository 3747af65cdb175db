"""Puts journal, outbox and replay behind the announcer; without a disk to write on the engine serves all the same."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import zmq

from edge.announce import Announcer
from edge.endpoint import Endpoint
from edge.journal.outbox import Outbox, SharedSink
from edge.journal.replay import ReplayServer
from edge.journal.store import Journal, JournalError
from edge.journal.trim import Bounds
from edge.keys import Keys
from edge.notices import Notices


def journal_path(setting: Path | None) -> Path | None:
    """Where alerts are written down; None for 'off'."""
    if setting is None:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
        return Path(home) / "haad-edge" / "journal.db"
    return None if str(setting) == "off" else setting


def keep(
    path: Path,
    bounds: Bounds,
    asked: list[Endpoint],
    announcer: Announcer,
    sink: SharedSink,
    notices: Notices,
    context: zmq.Context[zmq.Socket[bytes]],
    keys: Keys | None,
    stack: contextlib.ExitStack,
) -> None:
    """Open the journal, end what an earlier run left standing, answer on `asked`; all closed with `stack`.

    Without a disk to write on it says so, and the engine serves on, degraded. Raises SettingsError.
    """
    try:
        journal = Journal(path, bounds)
        outbox = Outbox(journal, sink, notices)
        stack.callback(outbox.close)
        if journal.note:
            notices.say(journal.note)
        announcer.write_to(outbox)
    except JournalError as e:
        announcer.trouble = str(e)
        notices.say(f"degraded: {e}; alerts are published, and not kept")
        return
    if asked:
        replay = ReplayServer(context, asked, journal.id, outbox, notices, keys)
        stack.callback(replay.close)
        announcer.replay, announcer.replays = replay.address, replay.answered
    outbox.start()
