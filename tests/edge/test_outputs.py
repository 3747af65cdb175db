"""Places where nothing can be written are known before the work, and asking leaves nothing behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.bridge.core import append
from edge.bundle import replace_file
from edge.cli import main, make_app
from edge.clip import save_clip
from edge.errors import OutputError
from edge.motion import make_motion
from edge.outputs import ready_file, ready_folder, save_text


@pytest.mark.parametrize(
    ("ask", "path", "why"),
    [
        (ready_folder, "FILE", "it is a file, but a folder is needed"),
        (ready_folder, "FILE/m", "/taken is a file, but a folder is needed"),
        (ready_folder, "/proc/m", "nothing can be created in /proc: "),
        (ready_folder, "/proc/m/n", "nothing can be created in /proc: "),
        (ready_folder, "n" * 300, "File name too long"),
        (ready_file, "FOLDER", "it is a folder, but a file is needed"),
        (ready_file, "FILE/x.json", "/taken is a file, but a folder is needed"),
        (ready_file, "/proc/x.json", "nothing can be created in /proc: "),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_why_and_next(
    tmp_path: Path, ask: Callable[[Path, str], None], path: str, why: str
) -> None:
    (tmp_path / "taken").write_text("mine")
    where = Path(path.replace("FILE", str(tmp_path / "taken")).replace("FOLDER", str(tmp_path)))
    with pytest.raises(OutputError) as e:
        ask(where, "--there")
    assert e.value.what == f"{where}: cannot be written" and why in e.value.why and e.value.why
    assert "--there " in e.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["taken"] and (tmp_path / "taken").read_text() == "mine"


def test_a_place_that_can_be_written_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.json").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for file in (tmp_path / "old.json", tmp_path / "deep/er/new.json", Path("new.json"), Path("/dev/null"), None):
        ready_file(file)
    for folder in (tmp_path, tmp_path / "deep/er", Path("new"), Path(), None):
        ready_folder(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["old.json"] and (tmp_path / "old.json").read_text() == "mine"


def test_an_error_names_the_file_that_was_asked_for_and_not_a_temporary_one(tmp_path: Path) -> None:
    for target in (tmp_path, Path("/proc/e.npz")):
        with pytest.raises(OSError) as e:
            replace_file(target, b"x")
        assert (e.value.filename, e.value.filename2) == (str(target), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "train --data CLIPS --out FILE --steps 1",
        "train --data CLIPS --out /proc/m --steps 1",
        "train-motion --data CLIPS --out FILE --steps 1",
        "motion-report --motion nowhere --data CLIPS --out FILE",
        "support grow CLIPS --motion nowhere --out FILE",
        "convert CLIPS --from utd_mhad --out FILE",
        "evaluate --data CLIPS --json /proc/x.json",
        "evaluate --data CLIPS --report FILE",
        "evaluate --data CLIPS --streaming --json CLIPS",
        "bench --only start --json /proc/x.json",
        "bench --only start --plot CLIPS",
        "embed CLIPS --out /proc/e.npz",
    ],
)
def test_commands_ask_before_they_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    pytest.importorskip("torch", reason="some of these commands need the extra 'train'")

    def works(*_: object, **__: object) -> None:
        raise AssertionError("it began to work")

    for work in (
        "trainer.fit.load_sets",
        "trainer.motion.fit.load_clip_sets",
        "trainer.motion.model.open_motion",
        "trainer.released.read_utd_mhad",
        "trainer.protocols.read_clips",
        "edge.bench.measure.measure",
        "edge.commands.embedding.embed_folder",
    ):
        monkeypatch.setattr(work, works)
    (tmp_path / "taken").write_text("")
    save_clip(tmp_path / "c/walk/1.npz", make_motion("walk", seconds=3))
    words = command.replace("FILE", str(tmp_path / "taken")).replace("CLIPS", str(tmp_path / "c")).split()
    e = CliRunner().invoke(make_app(), words).exception
    assert isinstance(e, OutputError) and e.why and e.fix


def test_what_fails_while_it_is_written_names_the_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flush names no file: what the user asked for must be named all the same, and nothing is left of it."""
    save_clip(tmp_path / "c/walk/1.npz", make_motion("walk", seconds=3))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    goal = tmp_path / "e.npz"
    for write in (lambda: replace_file(goal, b"x"), lambda: append(goal, ["x"])):
        with pytest.raises(OSError) as e:
            write()
        assert (e.value.errno, e.value.filename, e.value.filename2) == (errno.ENOSPC, str(goal), None)
        goal.unlink(missing_ok=True)
    monkeypatch.setattr("sys.argv", ["haad-edge", "embed", str(tmp_path / "c"), "--out", str(goal)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and [p.name for p in tmp_path.iterdir()] == ["c"]
    assert capsys.readouterr().err == (
        f"error: {goal}: cannot be read or written\n  why: No space left on device\n  next: free space on that disk\n"
    )


def test_a_text_or_a_clip_that_cannot_be_written_is_named() -> None:
    for write in (lambda p: save_text(p, "x"), lambda p: save_clip(p, make_motion("walk", seconds=3))):
        with pytest.raises(OSError) as e:
            write(Path("/dev/full"))
        assert (e.value.errno, e.value.filename) == (errno.ENOSPC, "/dev/full")
