"""Sets up the journal, the outbox and the replay server behind the announcer.

If the journal cannot be opened, the engine still serves, as degraded.
"""

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
    """The journal's path, as set or by default; None if it is 'off'. Raises JournalError if there is no default."""
    if setting is not None:
        return None if str(setting) == "off" else setting
    folder = users_folder("XDG_STATE_HOME", ".local/state")
    if folder is None:  # a temporary folder would be readable by others, and could be gone when it is needed
        raise JournalError(
            "no default place for the journal",
            why="this user has no home folder",
            fix="name a file: --journal PATH, or --journal off",
        )
    return folder / "journal.db"


def open_journal(
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
    """Open the journal, end the alerts that an earlier run left standing, and serve replay on `asked`.

    Returns the journal's path, or None when it is off. Also None when it cannot be opened: this is then logged, and the
    engine serves as degraded. `stack` closes everything. Raises SettingsError.
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
        notices.say(f"degraded: {e}; alerts are published, but not written to disk")
        return None
    if asked:
        replay = ReplayServer(context, asked, journal.id, outbox, notices, keys)
        stack.callback(replay.close)
        announcer.replay, announcer.replays = replay.address, replay.answered
    outbox.start()
    return path
