"""How the command ends: by Ctrl-C, for a reader that has enough, and with what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edge.bundle import BASE
from edge.cli import main
from edge.errors import EngineError, OutputError


@pytest.mark.parametrize("module", ["edge.cli", "typer", "rich.console", "trainer.cli"])
def test_ctrl_c_while_the_commands_are_imported_is_quiet(module: str) -> None:
    code = f"""
import sys
class Hasty:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Hasty())
from edge.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ImportError, EngineError])
def test_ctrl_c_is_quiet_whatever_a_library_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[BaseException]
) -> None:
    def app() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:  # as pybind11 does when the import of a compiled module is interrupted
            raise kind("initialization failed") from None

    monkeypatch.setattr("edge.cli.make_app", lambda: app)
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 130 and capsys.readouterr() == ("", "")


def test_what_went_wrong_after_ctrl_c_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise OutputError("the recording cannot be written")

    monkeypatch.setattr("edge.cli.make_app", lambda: app)
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 2 and "the recording cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["inspect", str(BASE)]])
def test_a_reader_that_has_enough_is_no_failure(words: list[str]) -> None:
    gone, out = os.pipe()
    os.close(gone)
    command = [sys.executable, "-m", "edge", *words]
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, timeout=60)
    os.close(out)
    assert (done.returncode, done.stderr) == (0, b"")
