"""The journal, the replay and a bridge as processes: what an operator does with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.clip import save_clip
from edge.events import Alert, Status
from edge.journal.store import Journal
from edge.motion import make_motion

from .conftest import Engine, send_clips
from .test_process import haad


@pytest.fixture(scope="module")
def fall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "fall.npz"
    save_clip(path, make_motion("fall", seconds=6, seed=3))
    return path


def raised(engine: Engine, fall: Path) -> list[Alert]:
    """Let somebody fall, and return the alerts once the engine has judged all."""
    sent = send_clips(engine.ingest, "yard", [fall])
    engine.until_frames(sent)
    engine.until(lambda e: isinstance(e, Status))
    found = [e for e in engine.events if isinstance(e, Alert)]
    assert found and found[0].type == "new"
    return found


def test_what_was_raised_before_a_listener_came_is_listed_and_numbers_go_on(
    start: Callable[..., Engine], made_support: Path, fall: Path, tmp_path: Path
) -> None:
    options = ("--journal", str(tmp_path / "kept.db"))
    first = start(made_support, *options)
    before = raised(first, fall)
    assert [a.seq for a in before] == list(range(len(before))) and len({a.journal for a in before}) == 1
    first.process.kill()
    first.process.wait()
    second = start(made_support, *options)
    after = raised(second, fall)
    assert after[0].seq == len(before) and after[0].journal == before[0].journal and after[0].run != before[0].run
    cursor = ["--cursor", str(tmp_path / "cursor"), "--since", "0"]
    total = len(before) + len(after)
    heard = haad("listen", "--from", second.alerts, "--json", "--count", str(total), *cursor)
    assert heard.returncode == 0, heard.stderr
    assert [json.loads(x)["seq"] for x in heard.stdout.splitlines()] == list(range(total))
    again = haad("listen", "--from", second.alerts, "--json", "--timeout", "2", *cursor)
    assert (again.returncode, again.stdout) == (0, "")
    assert second.stop() == 0
    journal = Journal(tmp_path / "kept.db")
    assert journal.next == total
    journal.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_alert_that_stands_when_the_engine_goes_is_ended(
    start: Callable[..., Engine], made_support: Path, fall: Path, tmp_path: Path, how: signal.Signals
) -> None:
    options = ("--journal", str(tmp_path / "kept.db"), "--track-timeout", "600")
    first = start(made_support, *options)
    send_clips(first.ingest, "yard", [fall], end=False)
    new = first.until(lambda e: isinstance(e, Alert))
    assert isinstance(new, Alert) and new.type == "new"
    if how is not signal.SIGKILL:  # a hang-up is a terminal that was closed
        assert first.stop(how) == 0
        end, last = first.events[-2:]
        assert isinstance(last, Status) and last.state == "offline"
        assert isinstance(end, Alert) and (end.id, end.type) == (new.id, "end") and "was stopped" in end.reason
        assert last.alert_seq == end.seq + 1
    first.process.kill()
    first.process.wait()
    second = start(made_support, *options, since=0)
    ends = []
    while not ends:
        second.until(lambda e: isinstance(e, Alert))
        ends = [e for e in second.events if isinstance(e, Alert) and e.type == "end"]
    assert [(e.id, e.run == new.run) for e in ends] == [(new.id, how is not signal.SIGKILL)]
    assert second.stop() == 0 and [e for e in second.events if isinstance(e, Alert) and e.type == "end"] == ends


def test_a_second_engine_with_the_same_journal_is_refused(
    start: Callable[..., Engine], made_support: Path, tmp_path: Path
) -> None:
    engine = start(made_support, "--journal", str(tmp_path / "kept.db"))
    ends = ["--ingest", f"sub+bind:ipc://{tmp_path}/i", "--alerts", f"pub+bind:ipc://{tmp_path}/a", "--metrics", "off"]
    done = haad("run", "--support", str(made_support), "--journal", str(tmp_path / "kept.db"), *ends)
    assert done.returncode == 2 and f"process {engine.process.pid} has it open" in done.stderr
    assert "--journal PATH, or --journal off" in done.stderr and "Traceback" not in done.stderr
    assert engine.stop() == 0


def test_without_a_place_to_write_alerts_go_out_and_the_engine_says_degraded(
    start: Callable[..., Engine], made_support: Path, fall: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    engine = start(made_support, "--journal", str(tmp_path / "file" / "j.db"))
    alerts = raised(engine, fall)
    assert [a.seq for a in alerts] == list(range(len(alerts))) and {a.journal for a in alerts} == {""}
    status = next(e for e in reversed(engine.events) if isinstance(e, Status))
    assert status.state == "degraded" and "cannot open" in status.reason and status.replay == ""
    assert "alerts are published, but not written to disk" in engine.said()
    assert engine.stop() == 0 and "Traceback" not in engine.said()


def test_a_damaged_journal_is_set_aside_at_the_start(
    start: Callable[..., Engine], made_support: Path, fall: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept.db").write_bytes(b"SQLite format 3\0" + os.urandom(20_000))
    engine = start(made_support, "--journal", str(tmp_path / "kept.db"))
    assert len(list(tmp_path.glob("kept.db.damaged-*"))) == 1 and "set aside" in engine.said()
    assert raised(engine, fall)[0].journal
    assert engine.stop() == 0


def test_a_bridge_takes_what_was_raised_before_it_started(
    start: Callable[..., Engine], made_support: Path, fall: Path, tmp_path: Path
) -> None:
    engine = start(made_support)
    alerts = raised(engine, fall)
    file = tmp_path / "out" / "alerts.jsonl"
    command = [sys.executable, "-m", "edge.cli", "bridge", "jsonl", str(file), "--from", engine.alerts, "--since", "0"]
    bridge = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert bridge.stderr
        for line in bridge.stderr:
            if "engine online" in line:
                break
        more = raised(engine, fall)
        engine.until(lambda _: file.exists() and len(file.read_text().splitlines()) >= len(more))
        bridge.terminate()
        said = bridge.communicate(timeout=20)[1]
        assert bridge.returncode == 0 and f"stopped: {len(more)} delivered, 0 refused, 0 missed" in said
    finally:
        bridge.kill()
    lines = [json.loads(x) for x in file.read_text().splitlines()]
    assert [m["seq"] for m in lines] == list(range(len(more))) and lines[0]["id"] == alerts[0].id
    assert engine.stop() == 0
