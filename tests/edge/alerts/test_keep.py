"""Where the journal is kept, and what is said where there is no place for it."""

from __future__ import annotations

import contextlib
import io
import pwd
from pathlib import Path

import pytest
import zmq

from edge.alerts.announce import Announcer
from edge.alerts.keep import journal_path, open_journal
from edge.errors import SettingsError
from edge.grid import WindowSpec
from edge.journal.outbox import SharedSink
from edge.journal.trim import Bounds
from edge.notices import Notices
from edge.settings import load_settings
from edge.support.cache import FeatureCache
from edge.windows import Windows

from ..harness import MemorySink


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container that runs under a number of its own."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)


def test_the_journal_is_where_it_was_told_to_be_or_the_user_keeps_such_things(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert journal_path(None) == tmp_path / "haad-edge" / "journal.db"
    assert journal_path(Path("off")) is None and journal_path(Path("j.db")) == Path("j.db")


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_gets_no_journal_and_is_told_so_in_one_line(tmp_path: Path) -> None:
    said, sink = io.StringIO(), SharedSink(MemorySink())
    announcer = Announcer(sink, Windows(WindowSpec.of(48, 2.0, 0.25, 0.5, 2.0), 4, 4))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with contextlib.ExitStack() as stack:
        stack.callback(context.term)
        rest = [], announcer, sink, Notices(said), context, None, stack
        assert open_journal(None, Bounds(), *rest) is None
        assert announcer.trouble.startswith("no default place for the journal")
        assert said.getvalue() == (
            "haad-edge: degraded: no default place for the journal: this user has no home folder → "
            "name a file: --journal PATH, or --journal off; alerts are published, but not written to disk\n"
        )
        assert open_journal(Path("off"), Bounds(), *rest) is None
        assert open_journal(tmp_path / "j.db", Bounds(), *rest) == tmp_path / "j.db"
    assert [p.name for p in tmp_path.iterdir() if p.name[0] == "~"] == [] and said.getvalue().count("\n") == 1


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_has_a_cache_all_the_same_and_no_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FeatureCache().root.is_absolute() and "~" not in str(FeatureCache().root)
    monkeypatch.setenv("HAAD_JOURNAL", "~/j.db")
    with pytest.raises(SettingsError, match="no such home"):
        load_settings()
