"""The command line: every setting is an option, errors are words, commands do what they say."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from edge.bundle import BASE, MANIFEST, open_bundle
from edge.cli import main, make_app
from edge.clip import save_clip
from edge.engine import open_engine
from edge.errors import ClipError, HaadError, SettingsError
from edge.motion import make_motion
from edge.settings import Settings, load_settings
from edge.support import library
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.support.transitions import TransitionPlan

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})


def cli(*arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, env={**os.environ, **env})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for name in ("walk", "squat"):
        for k in range(4):
            save_clip(root / name / f"{k}.npz", make_motion(name, seconds=3, seed=k))
    return root


def test_every_setting_is_an_option_of_run() -> None:
    text = runner.invoke(make_app(), ["run", "--help"]).output
    for name in set(Settings.model_fields) - {"normal"}:  # a table, which stands in a file
        assert f"--{name.replace('_', '-')}" in text


def test_every_command_and_every_option_says_what_it_is_for() -> None:
    def look(command: Any, path: str) -> Iterator[str]:
        if not command.help:
            yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from look(inner, f"{path} {name}")
        yield from (f"{path} {p.name}" for p in command.params if not p.help)

    found = list(look(typer.main.get_command(make_app()), "haad-edge"))
    assert found == []
    text = runner.invoke(make_app(), ["run", "--help"]).output
    for value in ("widen-stride", "drop-oldest", "low, default, high"):  # choices are named, as they show no others
        assert value in text
    assert "give up if no message comes within" in runner.invoke(make_app(), ["record", "--help"]).output


def test_all_houses_commands_are_there() -> None:
    text = runner.invoke(make_app(), ["--help"]).output
    for name in "run listen demo publish embed support doctor build train evaluate convert".split():
        assert f" {name} " in text


def test_embed_writes_unit_embeddings_with_their_paths_and_categories(clips: Path, tmp_path: Path) -> None:
    (clips / "walk" / "broken.npz").write_bytes(b"x")
    done = runner.invoke(make_app(), ["embed", str(clips), "--out", str(tmp_path / "e.npz")])
    (clips / "walk" / "broken.npz").unlink()
    assert done.exit_code == 0 and "8 clips" in done.output and "broken.npz" in done.output
    with np.load(tmp_path / "e.npz", allow_pickle=False) as z:
        assert z["embedding"].shape == (8, 128) and z["path"].shape == z["category"].shape == (8,)
        assert sorted(set(z["category"].tolist())) == ["squat", "walk"]
        assert all(Path(p).parent.name == c for p, c in zip(z["path"].tolist(), z["category"].tolist(), strict=True))
        np.testing.assert_allclose(np.linalg.norm(z["embedding"], axis=1), 1, atol=1e-5)


def test_support_show_lists_categories_and_problems(clips: Path, tmp_path: Path) -> None:
    (clips / "squat" / "bad.npz").write_bytes(b"x")
    done = runner.invoke(make_app(), ["support", "show", str(clips), "--cache", str(tmp_path)])
    (clips / "squat" / "bad.npz").unlink()
    assert done.exit_code == 0
    assert "walk" in done.output and "squat" in done.output and "bad.npz" in done.output and "version" in done.output


def test_support_list_shows_whole_dates_in_80_columns(clips: Path, tmp_path: Path) -> None:
    root = tmp_path / "a folder of support"
    save_clip(root / "walk" / "0.npz", make_motion("walk", seconds=2))
    library.add(root, "wave", [("a", make_motion("wave", seconds=2))], "added a_camera_of_a_long_name track 17 to wave")
    done = cli("support", "list", "--support", str(root), COLUMNS="80", TERM="dumb")
    assert len(re.findall(rb"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", done.stdout)) == 2, done.stdout
    assert "…".encode() not in done.stdout


def test_doctor_prints_its_findings() -> None:
    done = runner.invoke(make_app(), ["doctor"])
    assert "engine onnx" in done.output and "engine tensorrt" in done.output


def test_errors_are_raised_as_the_family_and_printed_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(runner.invoke(make_app(), ["embed", "/nowhere", "--out", "x.npz"]).exception, ClipError)
    monkeypatch.setattr("sys.argv", ["haad-edge", "embed", "/nowhere", "--out", "x.npz"])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 2
    said = capsys.readouterr().err
    assert "error: /nowhere: no such folder" in said and "next:" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --support CLIPS/walk", "next: name CLIPS, or put the files into a sub-folder"),
        ("run --support CLIPS/walk/0.npz", "is a file, not a folder"),
        ("run --support BAD", "next: correct these files"),
        ("run --support CLIPS --bundle nowhere", "why: no such folder"),
        ("run --support CLIPS --bundle CLIPS", "why: it has no manifest.json"),
        ("run --support CLIPS --config none.yaml", "none.yaml: cannot be read\n  why: No such file or directory"),
        ("listen --from there", "next: for example sub+connect:tcp://127.0.0.1:5556\n"),
        ("listen --from sub+connect:tcp://h", "next: for example sub+connect:tcp://127.0.0.1:5556\n"),
        ("listen --replay there", "next: for example dealer+connect:tcp://127.0.0.1:5557\n"),
        ("bridge jsonl BAD/a.jsonl --from there", "next: for example sub+connect:tcp://127.0.0.1:5556\n"),
        ("publish CLIPS --to there", "next: for example pub+connect:tcp://127.0.0.1:5555\n"),
        ("record --out BAD/r.haad --from there", "next: for example sub+connect:tcp://127.0.0.1:5558\n"),
        ("publish nodirq --wait 0.1 --to pub+connect:ipc:///nowhere", "error: nodirq: no such clip file"),
        ("publish BAD --wait 0.1 --to pub+connect:ipc:///nowhere", "cut.npz: not a usable clip"),
        (
            "publish CLIPS --wait 0.1 --to pub+connect:ipc:///nowhere",
            "if it has keys, give this end the client's: --keys",
        ),
    ],
)
def test_what_a_newcomer_may_get_wrong_is_answered_with_what_to_do(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    said: str,
) -> None:
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "cut.npz").write_bytes((clips / "walk" / "0.npz").read_bytes()[:2000])
    local = words.replace("CLIPS", str(clips)).replace("BAD", str(tmp_path)).split()
    monkeypatch.setattr("sys.argv", ["haad-edge", *local])
    with pytest.raises(SystemExit) as e:
        main()
    err = capsys.readouterr().err
    assert e.value.code == 2 and said.replace("CLIPS", str(clips)) in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "what", "why"),
    [
        ("inspect FILE", "FILE: neither a bundle", "no manifest.json next to it"),
        ("keys FILE", "FILE: cannot be written", "it is a file"),
        ("keys /proc/k", "/proc/k: cannot be written", "nothing can be created in /proc"),
        ("listen --keys HERE/none", "HERE/none: no such folder", "the folder of one side"),
        ("listen --keys FILE", "FILE: a file, not a folder of keys", "the folder of one side"),
        ("listen --cursor FILE", "FILE: not a cursor file", "JSONDecodeError"),
        ("listen --cursor FILE/c", "FILE/c: cannot be read", "Not a directory"),
        ("listen --cursor /proc/c", "/proc/c: cannot be written", "No such file or directory"),
        ("bridge webhook http://x --cursor HERE/c --secret-file HERE/s", "HERE/s: cannot be read", "No such file"),
        ("record --out /proc/r", "/proc/r: cannot be written", "No such file"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named_with_why_and_next(
    tmp_path: Path, words: str, what: str, why: str
) -> None:
    (tmp_path / "page.md").write_text("# a page\n")

    def local(text: str) -> str:
        return text.replace("FILE", str(tmp_path / "page.md")).replace("HERE", str(tmp_path))

    e = runner.invoke(make_app(), local(words).split()).exception
    assert isinstance(e, HaadError) and e.what.startswith(local(what)) and why in e.why and e.fix
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]  # no lock stays, no folder


def numbers(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Each option that takes a float: the command's words, and its own."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from numbers(inner, (*path, name))
    kinds = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
    yield from ((*path, p.opts[0]) for p in command.params if float in (kinds[p.name], *get_args(kinds[p.name])))


NUMBERS = list(numbers(typer.main.get_command(make_app())))


@pytest.mark.parametrize("words", NUMBERS, ids=" ".join)
def test_a_number_that_is_none_or_absurd_is_refused_by_the_options_name(words: tuple[str, ...]) -> None:
    app, name = make_app(), f"'{words[-1]}'"
    for value in ("nan", "inf", "-inf", "1e300", "-1e12"):
        done = runner.invoke(app, [*words, value])
        said = f"{done.output} {done.exception}"
        if words[0] == "run":  # its settings are checked whatever they come from
            assert isinstance(done.exception, SettingsError) and name[3:-1].replace("-", "_") in said, said
        else:
            assert done.exit_code == 2 and name in said, said


def test_a_pace_is_zero_or_one_that_gets_somewhere(tmp_path: Path) -> None:
    for words in (["publish", str(tmp_path)], ["replay", str(tmp_path)]):
        done = runner.invoke(make_app(), [*words, "--speed", "1e-300"])
        assert done.exit_code == 2 and "1e-300 must be 0 or at least 0.001" in done.output
        assert isinstance(runner.invoke(make_app(), [*words, "--speed", "0"]).exception, HaadError)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--support", ""],
        ["run", "--support", "x", "--journal="],
        ["run", "--support", "x", "--evidence", ""],
        ["support", "show", ""],
        ["support", "undo", "--support", ""],
        ["support", "add", "--support", "x", "--category", "walk", "--from", ""],
        ["publish", "", "--wait", "0"],
        ["bridge", "jsonl", "a.jsonl", "--cursor", ""],
        ["evaluate", "--data", ""],
        ["build", ""],
    ],
)
def test_an_empty_path_is_refused_and_not_the_working_folder(words: list[str]) -> None:
    e = runner.invoke(make_app(), words).exception
    option = next((w.rstrip("=") for w in reversed(words) if w.startswith("--")), "")
    assert isinstance(e, SettingsError) and e.what.endswith(" is empty") and "working folder" in e.why, words
    assert not option or words[-1] == "0" or e.what == f"{option} is empty"


def test_several_paths_can_still_be_given(clips: Path) -> None:
    words = ["publish", str(clips / "walk" / "0.npz"), str(clips / "squat"), "--wait", "0.05"]
    e = runner.invoke(make_app(), [*words, "--to", "pub+connect:ipc:///nowhere"]).exception
    assert "nobody listens" in str(e)  # so the paths were taken


def test_a_name_that_no_category_can_have_is_refused_before_anybody_is_waited_for(tmp_path: Path) -> None:
    words = ["support", "add", "--support", str(tmp_path / "s"), "--from-stream", "cam", "--category", "a/b"]
    e = runner.invoke(make_app(), [*words, "--poses", f"sub+connect:ipc://{tmp_path}/none", "--wait", "0"]).exception
    assert "'a/b' cannot name a category" in str(e)


def test_a_recording_of_nothing_leaves_no_file_in_the_way(tmp_path: Path) -> None:
    out = tmp_path / "r.haad"
    arguments = ["record", "--out", str(out), "--from", f"sub+connect:ipc://{tmp_path}/none", "--wait", "0.1"]
    for _ in range(2):
        assert "no message came within 0.1 s" in str(runner.invoke(make_app(), arguments).exception)
        assert not out.exists()


def test_a_command_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch, clips: Path) -> None:
    monkeypatch.setattr("edge.commands.console.importlib.util.find_spec", lambda name: None)
    for command in (["train", "--data", str(clips), "--out", "x"], ["evaluate", "--data", str(clips)], ["build", "x"]):
        e = runner.invoke(make_app(), command).exception
        assert "haad-edge[train]" in str(e), command


def test_evaluate_writes_json(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="evaluate needs the extra 'train'")
    out = tmp_path / "f.json"
    arguments = ["--shots", "2", "--split", "random", "--draws", "3", "--json", str(out)]
    done = runner.invoke(make_app(), ["evaluate", "--data", str(clips), *arguments])
    assert done.exit_code == 0, done.output
    figures = json.loads(out.read_text())
    assert set(figures["categories"]) == {"walk", "squat"} and figures["mean"] > 0.95


def test_support_show_caches_where_run_does(monkeypatch: pytest.MonkeyPatch, clips: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("HAAD_CACHE", str(tmp_path / "mine"))
    assert runner.invoke(make_app(), ["support", "show", str(clips)]).exit_code == 0
    kept = {p.name for p in (tmp_path / "mine").glob("*.npy")}
    assert len(kept) > 8  # clips, and what lies between two
    monkeypatch.setenv("HAAD_CACHE", str(tmp_path / "again"))
    bundle = open_bundle()
    engine, settings = open_engine(bundle), load_settings()
    cache = FeatureCache(settings.cache)
    load_support(
        clips,
        bundle,
        engine,
        cache,
        transitions=TransitionPlan(settings.normal, settings.max_transitions, engine.categories),
    )
    assert {p.name for p in (tmp_path / "again").glob("*.npy")} == kept


def test_a_file_that_cannot_be_written_is_said_without_a_traceback(clips: Path, tmp_path: Path) -> None:
    for target in (tmp_path, Path("/proc/x/y")):
        done = cli("embed", str(clips), "--out", str(target))
        assert done.returncode == 2 and b"error: " in done.stderr and b"Traceback" not in done.stderr
        assert str(target).rpartition("/")[0].encode() in done.stderr


def test_a_host_without_a_locale_reads_what_was_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("normal: {küche: [walk]}\n", encoding="utf-8")
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert not (BASE / MANIFEST).read_bytes().isascii()
    for words in (["inspect", str(BASE)], ["doctor", "--config", str(tmp_path / "c.yaml")]):
        done = cli(*words, **bare)
        assert b"cannot be read" not in done.stdout and b"error" not in done.stderr, done


def test_a_terminal_without_unicode_gets_question_marks() -> None:
    done = cli("doctor", PYTHONIOENCODING="latin-1", HAAD_CACHE="/proc/x")
    assert b"        ? name another" in done.stdout
    assert b"Traceback" not in done.stderr
