"""The support folder is looked at: what a change is, when it is loaded, and what is said when it cannot be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.clip import save_clip
from edge.errors import SupportError
from edge.motion import make_motion
from edge.support.enrol import SupportSet
from edge.support.reload import SupportWatcher, fingerprint

from ..harness import support_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("walk", "squat"):
        save_clip(tmp_path / "support" / name / "0.npz", make_motion(name, seconds=3))
    return tmp_path / "support"


def load(root: Path) -> SupportSet:
    """What stands there, by name."""
    names = sorted({path.parent.name for path in root.glob("*/*.npz")})
    if not names:
        raise SupportError("no clip")
    return support_of(*names)


class Watched:
    """A watcher that looks every few milliseconds, and an event for each thing it does."""

    def __init__(self, root: Path, load: Callable[[], SupportSet]) -> None:
        self.said: list[str] = []
        self.loaded, self.spoke = threading.Event(), threading.Event()

        def loading() -> SupportSet:
            try:
                return load()
            finally:
                self.loaded.set()

        def say(text: str, key: str | None) -> None:
            self.said.append(text)
            self.spoke.set()

        self.watcher = SupportWatcher(root, loading, 0.01, say, fingerprint(root))


def taken(watcher: SupportWatcher, seconds: float = 20) -> SupportSet:
    """What the watcher hands over, once it does."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if (found := watcher.take()) is not None:
            return found
        tick.wait(0.01)
    raise AssertionError("nothing was handed over")


def test_a_changed_folder_is_loaded_and_handed_over_once(folder: Path) -> None:
    w = Watched(folder, lambda: load(folder))
    try:
        assert w.watcher.take() is None
        save_clip(folder / "wave" / "0.npz", make_motion("wave", seconds=3))
        assert taken(w.watcher).names == ("squat", "walk", "wave")
        assert w.watcher.take() is None
    finally:
        w.watcher.close()


def test_a_folder_that_became_unusable_is_said_and_nothing_handed_over(folder: Path) -> None:
    w = Watched(folder, lambda: load(folder))
    try:
        for path in folder.glob("*/*.npz"):
            path.unlink()
        assert w.spoke.wait(20)
        assert "not used" in w.said[0] and w.watcher.take() is None and w.watcher.trouble == w.said[0]
    finally:
        w.watcher.close()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    tick = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        tick.wait(0.01)
    raise AssertionError("it never was")


def test_a_folder_that_is_put_back_is_no_trouble(folder: Path, tmp_path: Path) -> None:
    w = Watched(folder, lambda: load(folder))
    try:
        folder.rename(tmp_path / "away")
        until(lambda: bool(w.watcher.trouble))
        (tmp_path / "away").rename(folder)
        until(lambda: not w.watcher.trouble)
        assert w.watcher.take() is None, "it is what is in use"
    finally:
        w.watcher.close()


def test_what_failed_for_another_reason_is_tried_again(folder: Path) -> None:
    tries: list[int] = []

    def third() -> SupportSet:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("too many open files")
        return load(folder)

    seen = fingerprint(folder)
    save_clip(folder / "wave" / "0.npz", make_motion("wave", seconds=3))
    watcher = SupportWatcher(folder, third, 0.01, lambda text, key: None, seen, retry=0.05)
    try:
        assert "wave" in taken(watcher).names and len(tries) == 3 and watcher.trouble == ""
    finally:
        watcher.close()


def test_the_fingerprint_sees_added_removed_and_rewritten_clips(folder: Path) -> None:
    seen = {fingerprint(folder)}
    save_clip(folder / "walk" / "9.npz", make_motion("walk", seconds=3))
    seen.add(fingerprint(folder))
    save_clip(folder / "walk" / "9.npz", make_motion("walk", seconds=4))
    seen.add(fingerprint(folder))
    (folder / "walk" / "0.npz").unlink()
    seen.add(fingerprint(folder))
    (folder / "walk" / "9.npz").chmod(0o600)  # it may be readable now
    seen.add(fingerprint(folder))
    assert len(seen) == 5


def test_the_watch_goes_on_after_anything_and_sees_what_changed_before_it_began(folder: Path) -> None:
    fails = [RuntimeError("surprise")]

    def sometimes() -> SupportSet:
        if fails:
            raise fails.pop()
        return load(folder)

    said: list[str] = []
    seen = fingerprint(folder)
    save_clip(folder / "wave" / "0.npz", make_motion("wave", seconds=3))
    watcher = SupportWatcher(folder, sometimes, 0.01, lambda text, key: said.append(text), seen)
    try:
        while not said:
            threading.Event().wait(0.01)
        save_clip(folder / "wave" / "1.npz", make_motion("wave", seconds=3, seed=1))
        assert "wave" in taken(watcher, 5).names and "surprise" in said[0], said
    finally:
        watcher.close()
