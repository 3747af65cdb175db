"""Puts journal, outbox and replay behind the announcer; without a disk to write on the engine serves all the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import zmq

from edge.alerts.announce import Announcer
from edge.journal.outbox import Outbox, SharedSink
from edge.journal.replay import ReplayServer
from edge.journal.store import Journal, JournalError
from edge.journal.trim import Bounds
from edge.network.endpoint import Endpoint
from edge.network.keys import Keys
from edge.notices import Notices
from edge.outputs import users_folder


def journal_path(setting: Path | None) -> Path | None:
    """Where alerts are written down; None for 'off'. Raises JournalError where there is no place by default."""
    if setting is not None:
        return None if str(setting) == "off" else setting
    folder = users_folder("XDG_STATE_HOME", ".local/state")
    if folder is None:  # in a temporary one others could read it, and it would go when it is needed
        raise JournalError(
            "no place for the journal", why="this user has no home", fix="name one: --journal PATH, or --journal off"
        )
    return folder / "journal.db"


def keep(
    setting: Path | None,
    bounds: Bounds,
    asked: list[Endpoint],
    announcer: Announcer,
    sink: SharedSink,
    notices: Notices,
    context: zmq.Context[zmq.Socket[bytes]],
    keys: Keys | None,
    stack: contextlib.ExitStack,
) -> Path | None:
    """Open the journal, end what an earlier run left standing, answer on `asked`; all closed with `stack`.

    Returns where it is; None when it is off. Without a disk to write on, too: then it says so, and the engine serves
    on, degraded. Raises SettingsError.
    """
    try:
        path = journal_path(setting)
        if path is None:
            return None
        journal = Journal(path, bounds)
        outbox = Outbox(journal, sink, notices)
        stack.callback(outbox.close)
        if journal.note:
            notices.say(journal.note)
        announcer.write_to(outbox)
    except JournalError as e:
        announcer.trouble = str(e)
        notices.say(f"degraded: {e}; alerts are published, and not kept")
        return None
    if asked:
        replay = ReplayServer(context, asked, journal.id, outbox, notices, keys)
        stack.callback(replay.close)
        announcer.replay, announcer.replays = replay.address, replay.answered
    outbox.start()
    return path
