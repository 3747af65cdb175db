"""Changes to a support folder: each a version, each whole, each to be taken back; and what a bad one says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import open_bundle
from edge.clip import load_clip, save_clip
from edge.engine import open_engine
from edge.errors import HaadError, SupportError
from edge.motion import make_motion
from edge.support import history, library
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.support.reload import fingerprint

Bytes = dict[str, bytes]


def clip(seed: int = 0):  # type: ignore[no-untyped-def]
    return make_motion("wave", seconds=2, seed=seed)


def content(root: Path) -> Bytes:
    """Every file outside the history."""
    files = (p for p in root.rglob("*") if p.is_file() and history.FOLDER not in p.parts)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("walk", "squat"):
        for k in range(2):
            save_clip(tmp_path / "support" / name / f"{k}.npz", make_motion(name, seconds=2, seed=k))
    return tmp_path / "support"


def test_every_change_is_a_version_and_undo_walks_back_through_them(root: Path) -> None:
    (root / "calibration.json").write_text(json.dumps({"levels": {"walk": 1.2, "squat": 2}, "windows": {"walk": 4}}))
    states = [content(root)]
    changes: list[Callable[[], object]] = [
        lambda: library.add(root, "wave", [("cam 1/7", clip())]),
        lambda: library.rename(root, "walk", "stroll"),
        lambda: library.rename(root, "stroll/0", "wave"),
        lambda: library.remove(root, "squat"),
        lambda: library.remove(root, "stroll/1.npz"),
    ]
    for change in changes:
        change()
        states.append(content(root))
    assert set(states[1]) - set(states[0]) == {"wave/cam-1-7.npz"}
    assert json.loads(states[2]["calibration.json"]) == {
        "levels": {"stroll": 1.2, "squat": 2},
        "windows": {"stroll": 4},
    }
    assert states[2]["stroll/1.npz"] == states[0]["walk/1.npz"] == states[3]["stroll/1.npz"]
    assert states[3]["wave/0.npz"] == states[0]["walk/0.npz"] and "stroll/0.npz" not in states[3]
    assert set(states[-1]) == {"wave/0.npz", "wave/cam-1-7.npz", "calibration.json"}
    assert not (root / "squat").exists() and not (root / "stroll").exists(), "no empty folder is left"
    for before in reversed(states[:-1]):
        library.undo(root, None)
        assert content(root) == before
    with pytest.raises(SupportError, match="nothing to undo"):
        library.undo(root, None)
    found, by_hand = library.versions(root)
    assert len(found) == 1 + 2 * len(changes) and not by_hand
    assert [v.what for v in found[:3]] == ["found as it was", "added 1 to wave", "renamed walk to stroll"]
    assert [(v.clips, v.categories) for v in found[:6]] == [(4, 2), (5, 3), (5, 3), (5, 3), (3, 2), (2, 1)]
    library.undo(root, 6)
    assert content(root) == states[5], "what was undone is not lost"
    library.undo(root, None)
    assert content(root) == states[0], "and going there is itself undone"


def test_the_record_names_a_moved_clip_as_it_is_called_now(root: Path) -> None:
    for old, new, goal in (
        ("walk/0", "squat/../../evil", "squat/evil"),
        ("walk/1.npz", "wave", "wave/1"),
        ("wave/1", "wave/a b.npz", "wave/a-b"),
    ):
        version = library.rename(root, old, new)
        assert version.what == f"renamed {old} to {goal}" and (root / f"{goal}.npz").is_file()
    library.rename(root, "wave/", "run")  # as a shell completes it: the category, not its first clip
    assert (root / "run/a-b.npz").is_file() and not (root / "wave").exists()


def test_what_was_changed_by_hand_is_a_version_too(root: Path) -> None:
    library.add(root, "wave", [("a", clip())])
    save_clip(root / "wave" / "b.npz", clip(1))
    before = content(root)
    assert library.versions(root)[1]
    library.remove(root, "wave/a")
    library.undo(root, None)
    assert content(root) == before
    library.undo(root, None)
    assert set(before) - set(content(root)) == {"wave/b.npz"}


def test_a_calibration_that_cannot_be_read_stays_as_it_is(root: Path) -> None:
    for text in ("{", "[" * 100_000):
        (root / "calibration.json").write_text(text)
        library.rename(root, "walk", "stroll")
        library.undo(root, None)
        assert (root / "calibration.json").read_text() == text


def test_a_clip_comes_back_as_it_was_saved_and_the_loader_never_sees_the_history(root: Path, tmp_path: Path) -> None:
    before = fingerprint(root)
    _, placed = library.add(root, "wave", [("a", clip()), ("a", clip(1))])
    assert placed == ["wave/a.npz", "wave/a-2.npz"]
    assert (load_clip(root / placed[1]).joints == clip(1).joints).all()
    assert {Path(p).name for p, *_ in set(fingerprint(root)) - set(before)} == {"a.npz", "a-2.npz"}
    bundle = open_bundle()
    support = load_support(root, bundle, open_engine(bundle), FeatureCache(tmp_path / "cache"))
    assert dict(zip(support.names, support.shots, strict=True)) == {"squat": 2, "walk": 2, "wave": 2}
    assert not any("history" in p for p in support.problems)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: library.remove(r, "wlak"), "there is no 'wlak'"),
        (lambda r: library.remove(r, "walk/9"), "there is no 'walk/9'"),
        (lambda r: library.remove(r, ""), "there is no ''"),
        (lambda r: library.rename(r, "walk", "squat"), "'squat' exists already"),
        (lambda r: library.rename(r, "walk/0", "walk/1"), "'walk/1.npz' exists already"),
        (lambda r: library.rename(r, "walk", "../../etc"), "cannot name a category"),
        (lambda r: library.rename(r, "walk/0", ".history/x"), "cannot name a category"),
        (lambda r: library.add(r, ".hidden", [("a", clip())]), "cannot name a category"),
        (lambda r: library.add(r, " ", [("a", clip())]), "cannot name a category"),
        (lambda r: library.add(r, "w" * 300, [("a", clip())]), "cannot name a category"),
        (lambda r: library.undo(r, 7), "no version 7"),
        (lambda r: library.undo(r / "none", None), "no such folder"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    root: Path, change: Callable[[Path], object], said: str
) -> None:
    before = content(root)
    with pytest.raises(SupportError, match=said):
        change(root)
    assert content(root) == before


def test_a_slash_behind_a_category_means_the_category(root: Path) -> None:
    before = content(root)
    assert library.rename(root, "walk/", "stroll/").what == "renamed walk to stroll"
    assert set(content(root)) == {"stroll/0.npz", "stroll/1.npz", "squat/0.npz", "squat/1.npz"}
    library.rename(root, "stroll/0", "squat/old/")
    assert content(root)["squat/old.npz"] == before["walk/0.npz"]
    library.rename(root, "squat/old", "wave/")
    assert content(root)["wave/old.npz"] == before["walk/0.npz"]
    assert library.add(root, "wave/", [("a", clip())])[1] == ["wave/a.npz"]
    library.remove(root, "squat//")
    assert set(content(root)) == {"stroll/1.npz", "wave/old.npz", "wave/a.npz"}


def test_a_clip_that_is_there_already_is_said_to_be_where_and_how_to_move_it(root: Path) -> None:
    library.add(root, "wave", [("a", clip())])
    with pytest.raises(SupportError) as e:
        library.add(root, "bye bye", [("b", clip())])
    assert e.value.why == "the folder has this already, as wave/a.npz"
    assert e.value.fix == f"haad-edge support rename wave/a.npz 'bye bye' --support {root}"
    library.rename(root, "wave/a.npz", "bye bye")  # as it says
    assert "bye bye/a.npz" in content(root)
    with pytest.raises(SupportError) as e:
        library.add(root, "bye bye", [("b", clip())])
    assert not e.value.fix


def test_the_same_again_and_the_last_clip_are_refused(root: Path) -> None:
    library.add(root, "wave", [("a", clip())])
    with pytest.raises(SupportError, match="nothing would change"):
        library.add(root, "wave", [("b", clip())])
    library.remove(root, "walk")
    library.remove(root, "squat")
    with pytest.raises(SupportError, match="no clip would be left"):
        library.remove(root, "wave")
    assert list(content(root)) == ["wave/a.npz"]


class Killed(BaseException):
    """Like kill -9: nothing catches it."""


@settings(deadline=None, max_examples=25)
@given(after=st.integers(0, 12))
def test_a_change_that_is_cut_off_anywhere_is_seen_whole_or_not_at_all(
    after: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("s")
    for k in range(3):
        save_clip(root / "walk" / f"{k}.npz", clip(k))
    old = content(root)
    new = {name.replace("walk", "stroll"): data for name, data in old.items()}
    with pytest.MonkeyPatch.context() as patch:
        left, write, unlink = [after], history.replace_file, Path.unlink

        def or_killed(act: Callable[..., None]) -> Callable[..., None]:
            def step(*given: object, **options: object) -> None:
                if not left[0]:
                    raise Killed
                left[0] -= 1
                act(*given, **options)

            return step

        patch.setattr(history, "replace_file", or_killed(write))
        patch.setattr(Path, "unlink", or_killed(unlink))
        try:
            library.rename(root, "walk", "stroll")
            assert after == 12 or left[0] >= 0
        except Killed:
            pass
    with history.reading(root):
        seen = content(root)
    # Three objects, the first version, pending.json; from then on it is the new state.
    assert seen == (old if after < 5 else new)


def test_a_reader_waits_for_a_change_and_a_change_for_a_reader(root: Path) -> None:
    library.add(root, "wave", [("a", clip())])
    done = threading.Event()

    def change() -> None:
        library.remove(root, "wave")
        done.set()

    with history.reading(root):
        thread = threading.Thread(target=change)
        thread.start()
        assert not done.wait(0.2) and (root / "wave" / "a.npz").exists()
    thread.join(10)
    assert done.is_set() and not (root / "wave").exists()


def test_what_is_waited_for_is_said_once_and_the_wait_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library.add(root, "wave", [("a", clip())])
    monkeypatch.setattr(history, "PATIENCE_S", 0.05)
    thread, said = threading.Thread(target=library.remove, args=(root, "wave")), ""
    with history.reading(root):
        thread.start()
        for _ in range(1000):
            said += capsys.readouterr().err
            if said:
                break
            thread.join(0.01)
        assert thread.is_alive() and (root / "wave" / "a.npz").exists()
    thread.join(10)
    lock = root / history.FOLDER / "lock"
    who = f"process {os.getpid()}" if Path("/proc/locks").exists() else "another process"
    assert said == f"haad-edge: waiting for {lock}: {who} holds it\n" and capsys.readouterr().err == ""
    assert not (root / "wave").exists()


def test_a_half_done_change_that_cannot_be_completed_keeps_the_folder_from_being_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add(root, "wave", [("a", clip())])
    home = root / history.FOLDER
    (home / "versions" / "000002.json").rename(home / "pending.json")
    (root / "wave" / "a.npz").unlink()

    def full(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(history, "replace_file", full)
    with pytest.raises(SupportError, match="a change to the folder was interrupted"), history.reading(root):
        pass
    monkeypatch.undo()
    with history.reading(root):
        assert (root / "wave" / "a.npz").exists()


def test_what_is_damaged_in_the_history_is_put_right_by_whoever_has_it(root: Path) -> None:
    library.add(root, "wave", [("a", clip())])
    digest = library.versions(root)[0][-1].files["wave/a.npz"]
    stored = root / history.FOLDER / "objects" / digest
    whole = stored.read_bytes()
    stored.write_bytes(b"x")
    library.remove(root, "wave")
    library.add(root, "wave", [("a", clip())])
    assert stored.read_bytes() == whole == (root / "wave" / "a.npz").read_bytes()


def test_a_clip_that_is_being_written_by_hand_is_no_version_yet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history.History, "current", lambda self: {"walk/0.npz": "0" * 64})  # what it was a moment ago
    with pytest.raises(SupportError, match=r"walk/0\.npz: is being written"):
        library.add(root, "wave", [("a", clip())])
    assert library.versions(root)[0] == []


def test_a_hidden_folder_is_no_category_of_any_version(root: Path) -> None:
    save_clip(root / ".old" / "0.npz", clip(5))
    version, _ = library.add(root, "wave", [("a", clip())])
    assert version.categories == 3 and not any(name.startswith(".") for name in version.files)
    library.undo(root, None)
    assert (root / ".old" / "0.npz").exists()


def test_damaged_history_is_named_and_old_versions_are_forgotten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "VERSIONS_MOST", 3)
    for k in range(5):
        library.add(root, "wave", [(f"{k}", clip(k))])
        library.remove(root, f"wave/{k}") if k else None
    assert len(library.versions(root)[0]) == 3
    kept = {p.name for p in (root / history.FOLDER / "objects").iterdir()}
    assert kept == {d for v in library.versions(root)[0] for d in v.files.values()}
    gone = next(
        iter(set(library.versions(root)[0][-2].files.values()) - set(library.versions(root)[0][-1].files.values()))
    )
    (root / history.FOLDER / "objects" / gone).write_bytes(b"x")
    before = content(root)
    with pytest.raises(HaadError, match="missing or damaged"):
        library.undo(root, None)
    assert content(root) == before
    for text in ("{", "[" * 100_000):
        next((root / history.FOLDER / "versions").iterdir()).write_text(text)
        with pytest.raises(SupportError, match="cannot be read as a version"):
            library.undo(root, None)


def test_an_alert_is_not_accepted_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped name would become a support folder that no engine watches."""
    with pytest.raises(SupportError, match="suport: no such folder"):
        library.accept(tmp_path / "suport", ["3f2a"], tmp_path / "evidence", None)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_answered_with_what_is(root: Path) -> None:
    with pytest.raises(SupportError) as e:
        library.remove(root, "walk/9")
    assert e.value.fix == "the clips of walk are 0, 1"
    with pytest.raises(SupportError) as e:
        library.remove(root, "run/0")
    assert e.value.fix == "its categories are squat, walk"
