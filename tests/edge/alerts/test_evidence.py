"""The movement behind alerts: joined without a seam, named by the alert, bounded, and no matter what the disk does."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.alerts.evidence import LONGEST_S, AlertWindow, Evidence, find, prepare
from edge.clip import load_clip, save_clip
from edge.errors import ClipError, SettingsError, SupportError
from edge.grid import SECOND
from edge.motion import make_motion
from edge.notices import Notices
from edge.service import serving
from edge.settings import Settings
from edge.support import library
from tests.edge.harness import HeightEngine, bench, message, person

RATE, T = 24.0, 48
ID = {short: f"{short:0<16}" for short in ("aa11", "bb22", "cc33")}


def notices() -> Notices:
    return Notices(open("/dev/null", "w"))  # noqa: PTH123


def window(end: float) -> tuple[np.ndarray, np.ndarray]:
    """A window whose every row holds its own time as the joints' height."""
    joints = np.tile(np.eye(15, 3, dtype=np.float32), (T, 1, 1))
    joints[..., 1] = (end - (T - 1 - np.arange(T)) / RATE)[:, None]
    return joints, np.ones((T, 15), np.float32)


def put(evidence: Evidence, id: str, end: float, category: str = "walk") -> None:
    evidence.put(AlertWindow(id, "cam/1", 7, round(end * SECOND), category, end / 8, ("l_knee",), *window(end)))


def test_windows_of_a_standing_alert_join_into_one_clip(tmp_path: Path) -> None:
    e = Evidence(tmp_path / "e", RATE, 100, notices())
    for end in (10, 11, 12.5, 13.25):
        put(e, "aa11", end, "walk" if end == 10 else "squat")
    put(e, "bb22", 10)
    e.close()
    [(path, clip, about)] = find(tmp_path / "e", "aa11")
    assert path.name == "aa11.npz" and e.lost == 0
    expected = 10 - 47 / RATE + np.arange(round(3.25 * RATE) + T) / RATE
    np.testing.assert_allclose(clip.joints[:, 3, 1], expected, atol=1e-4)
    assert (about["category"], about["stream"], about["track"]) == ("walk", "cam/1", 7)
    assert (about["peak"], about["unlike"]) == (1.66, ["l_knee"])
    assert about["to"] == 13.25 * SECOND and about["from"] == pytest.approx(expected[0] * SECOND, abs=1e6)
    assert clip.subject == "cam/1/7" and clip.fps == RATE


def test_what_does_not_join_is_a_second_file_and_length_and_number_are_bounded(tmp_path: Path) -> None:
    e = Evidence(tmp_path, RATE, 3, notices())
    put(e, ID["aa11"], 10)
    put(e, ID["aa11"], 13)
    put(e, ID["aa11"], 13.5)
    put(e, ID["aa11"], 5)
    e.close()
    found = find(tmp_path, ID["aa11"])
    assert [(p.name, len(c.joints)) for p, c, _ in found] == [
        (f"{ID['aa11']}.npz", T),
        (f"{ID['aa11']}-2.npz", T + 12),
        (f"{ID['aa11']}-3.npz", T),
    ]
    e = Evidence(tmp_path, RATE, 3, notices())
    for end in range(10, 60):
        put(e, ID["cc33"], end)
    e.close()
    assert LONGEST_S <= load_clip(tmp_path / f"{ID['cc33']}.npz").seconds <= LONGEST_S + 1
    assert len(list(tmp_path.iterdir())) == 3, "the oldest goes"
    e = Evidence(tmp_path / "2", RATE, 100, notices())
    for end in range(10, 100, 3):
        put(e, ID["cc33"], end)
    e.close()
    assert len(find(tmp_path / "2", ID["cc33"])) == 8


def test_memory_holds_the_newest_clips_that_may_still_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.evidence.HELD_MOST", 2)
    e = Evidence(tmp_path, RATE, 100, notices())
    for id in ("aa11", "bb22", "cc33"):
        put(e, id, 10)
    put(e, "aa11", 11)  # let go of: what follows is a second file
    put(e, "cc33", 11)
    for end in range(12, 20):
        put(e, "cc33", end)
    e.close()
    assert [p.name for p, _, _ in find(tmp_path, "aa11")] == ["aa11.npz", "aa11-2.npz"]
    assert [len(c.joints) for _, c, _ in find(tmp_path, "cc33")] == [T + 9 * 24]
    assert list(e._clips) == ["aa11"], "what is as long as it may be grows no more"
    assert list(e._parts) == ["bb22", "aa11", "cc33"]


def test_another_track_begins_a_file_of_its_own(tmp_path: Path) -> None:
    e = Evidence(tmp_path, RATE, 3, notices())
    for end, track in ((10, 7), (11, 7), (11.5, 8), (12.5, 8)):
        e.put(AlertWindow("aa11", "cam/1", track, round(end * SECOND), "walk", 1.5, (), *window(end)))
    e.close()
    found = find(tmp_path, "aa11")
    assert [(about["track"], len(c.joints)) for _, c, about in found] == [(7, T + 24), (8, T + 24)]


def test_windows_that_only_touch_join_too(tmp_path: Path) -> None:
    e = Evidence(tmp_path, RATE, 3, notices())
    put(e, "aa11", 10)
    put(e, "aa11", 12)
    e.close()
    [(_, clip, _)] = find(tmp_path, "aa11")
    np.testing.assert_allclose(clip.joints[:, 3, 1], 12 - np.arange(2 * T)[::-1] / RATE, atol=1e-4)


def test_no_more_files_than_asked_for_and_they_are_for_their_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.alerts.evidence.KNOWN_MOST", 2)
    e = Evidence(tmp_path / "e", RATE, 2, notices())
    for n in range(5):
        put(e, f"{n:016}", 10 + n)
    e.close()
    assert sorted(p.stem for p in (tmp_path / "e").iterdir()) == [f"{n:016}" for n in (3, 4)] == list(e._parts)
    assert (tmp_path / "e").stat().st_mode & 0o777 == 0o700


def test_what_is_too_old_is_deleted_at_the_start_and_while_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.alerts.evidence.TIDY_S", 0.01)
    first, second = f"{ID['aa11']}-2", ID["bb22"]
    mine = ["0.npz", "aa11.npz", "notes.txt", "walk.npz"]
    for name, days in ((f"{first}.npz", 3.1), (f"{second}.npz", 2.9), *((name, 99) for name in mine)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (10**9 - days * 86400,) * 2)
    now = [1e9]
    e = Evidence(tmp_path, RATE, 100, notices(), days=3, wall=lambda: now[0])
    until = time.monotonic() + 20
    for name, there in ((first, [*mine, f"{second}.npz"]), (second, mine)):
        while (tmp_path / f"{name}.npz").exists():
            assert time.monotonic() < until
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(there)
        now[0] += 0.2 * 86400
    e.close()


def test_what_is_too_old_is_deleted_also_while_an_alert_stands(tmp_path: Path) -> None:
    e = Evidence(tmp_path, RATE, 100, notices(), days=3)
    put(e, ID["aa11"], 10)
    old = tmp_path / f"{ID['bb22']}.npz"
    while not (tmp_path / f"{ID['aa11']}.npz").exists():
        time.sleep(0.01)
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    e._tidied = -1e9
    put(e, ID["aa11"], 11)
    e.close()
    assert not old.exists() and len(load_clip(tmp_path / f"{ID['aa11']}.npz").joints) == T + 24


def test_what_cannot_be_deleted_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(ID.values())
    for k, name in enumerate(names):
        (tmp_path / f"{name}.npz").write_bytes(b"")
        os.utime(tmp_path / f"{name}.npz", (k, k))
    (tmp_path / f"{names[0]}.npz").unlink()
    (tmp_path / f"{names[0]}.npz").mkdir()
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.stem == names[1]:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    told = io.StringIO()
    e = Evidence(tmp_path, RATE, 100, Notices(told), days=3)
    put(e, "0" * 16, 10)
    e.close()
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["0" * 16, *names[:2]] and e.lost == 0
    assert f"{names[1]}.npz: cannot be deleted: Operation not permitted" in told.getvalue()


def test_a_disk_that_hangs_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.alerts.evidence.WAITING_MOST", 3)
    entered, go = threading.Event(), threading.Event()
    keep = Evidence._keep

    def hang(self: Evidence, x: AlertWindow) -> None:
        entered.set()
        assert go.wait(20)
        keep(self, x)

    monkeypatch.setattr(Evidence, "_keep", hang)
    e = Evidence(tmp_path, RATE, 100, notices())
    put(e, "aa10", 10)
    assert entered.wait(20)
    for n in range(1, 6):
        put(e, f"aa1{n}", 10)
    assert e.lost == 2
    go.set()
    e.close()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_disk_that_refuses_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    e = Evidence(tmp_path / "file" / "e", RATE, 3, notices())
    put(e, "aa11", 10)
    put(e, "bb22", 10)
    e.close()
    assert e.lost == 2


def test_where_nothing_can_be_kept_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root, why in (("file", "is a file, not a folder"), ("file/e", "Not a directory")):
        with pytest.raises(SettingsError, match=f"evidence .*: cannot be kept there: .*{why} → .*--evidence DIR"):
            prepare(tmp_path / root)
    prepare(tmp_path / "new" / "e")
    prepare(tmp_path / "new" / "e")
    assert (tmp_path / "new" / "e").stat().st_mode & 0o777 == 0o700
    save_clip(tmp_path / "support" / "calm" / "0.npz", make_motion("walk", seconds=2))
    given = {"support": tmp_path / "support", "evidence": tmp_path / "file", "cache": tmp_path / "cache"}
    with pytest.raises(SettingsError, match="cannot be kept there"), serving(Settings(**given), notices()):  # type: ignore[arg-type]
        pass


def test_the_loop_hands_over_the_windows_of_its_alerts_and_accept_adds_them(tmp_path: Path) -> None:
    kept = Evidence(tmp_path / "e", RATE, 100, notices())
    b = bench(HeightEngine(), raise_after=2, update_every=1.0)
    b.runtime.evidence = kept
    heights = [0.0] * 72 + [9.0] * 72 + [0.0] * 120
    b.play([message("cam", k, 1 + k / 24, {5: person(h)}) for k, h in enumerate(heights)])
    kept.close()
    alerts = b.sink.alerts()
    assert {a.type for a in alerts} == {"new", "update", "end"} and len({a.id for a in alerts}) == 1
    [(_, clip, about)] = find(tmp_path / "e", alerts[0].id)
    said = [a for a in alerts if a.type != "end"]
    assert about["alert"] == alerts[0].id and about["category"] == alerts[0].category == "calm"
    assert about["to"] == said[-1].end and len(said) >= 3
    assert about["peak"] == round(said[-1].peak, 2) and tuple(about["unlike"]) == said[0].joints
    assert clip.seconds == pytest.approx(47 / 24 + (said[-1].end - said[0].end) / SECOND, abs=1e-3)
    y = clip.joints[:, 0, 1]
    at = about["from"] / SECOND + np.arange(len(y)) / RATE
    np.testing.assert_allclose(y, np.interp(at, 1 + np.arange(len(heights)) / 24, heights), atol=0.01)

    root = tmp_path / "support"
    save_clip(root / "calm" / "0.npz", make_motion("walk", seconds=2))
    version, placed = library.accept(root, [alerts[0].id[:6]], tmp_path / "e", None)
    assert placed == [f"calm/alert_{alerts[0].id}.npz"] and alerts[0].id in version.what
    assert (load_clip(root / placed[0]).joints == clip.joints).all()
    assert json.loads(load_clip(root / placed[0]).source)["alert"] == alerts[0].id, "where it is from stays known"
    with pytest.raises(SupportError, match="nothing would change"):
        library.accept(root, [alerts[0].id], tmp_path / "e", "other")
    library.undo(root, None)
    _, placed = library.accept(root, [alerts[0].id], tmp_path / "e", "other")
    assert placed[0].startswith("other/")


def test_a_part_of_what_was_kept_can_be_accepted_alone(tmp_path: Path) -> None:
    e = Evidence(tmp_path / "e", RATE, 100, notices())
    for end in (10, 11, 12, 16, 17):
        put(e, "aa11", end)
    e.close()
    root = tmp_path / "support"
    save_clip(root / "calm" / "0.npz", make_motion("walk", seconds=2))
    _, placed = library.accept(root, ["aa11"], tmp_path / "e", None, (2.5, None))
    assert placed == ["walk/alert_aa11.npz"] and load_clip(root / placed[0]).joints[-1, 3, 1] == 12
    version, placed = library.accept(root, ["aa11-2"], tmp_path / "e", "fall", (0.5, 1.5))
    assert placed == ["fall/alert_aa11-2.npz"] and version.what == "accepted a part of aa11 as fall"
    whole, cut = (load_clip(p) for p in (tmp_path / "e" / "aa11-2.npz", root / placed[0]))
    assert (cut.joints == whole.joints[12:49]).all() and cut.seconds == 1.5
    before, after = json.loads(whole.source), json.loads(cut.source)
    assert (after["from"] - before["from"], after["to"] - after["from"]) == (SECOND // 2, 1.5 * SECOND)
    assert after["alert"] == "aa11"
    _, placed = library.accept(root, ["aa11-2"], tmp_path / "e", None, (1.0, None))
    assert (load_clip(root / placed[0]).joints == whole.joints[24:]).all()
    _, placed = library.accept(root, ["aa11-2"], tmp_path / "e", "end", (2.0, None))
    assert len(load_clip(root / placed[0]).joints) == 24, "a second, as everywhere: the last frame counts too"
    for at, seconds, there in ((2.5, None, "0.5"), (9.0, None, "0.0"), (2.1, 5.0, "0.9")):
        with pytest.raises(SupportError, match=rf"aa11-2\.npz: lasts 3\.0 s, so from {at:g} s on there are {there} s"):
            library.accept(root, ["aa11-2"], tmp_path / "e", None, (at, seconds))
    for number in (1, 2):
        (name,) = [p.name for p, *_ in find(tmp_path / "e", f"aa11-{number}")]
        assert name == ("aa11.npz", "aa11-2.npz")[number - 1]
    (tmp_path / "e" / "aa11 of mine.npz").write_bytes(b"x")
    assert len(find(tmp_path / "e", "aa11")) == 2
    with pytest.raises(SupportError, match="nothing is kept of alert aa11-3"):
        find(tmp_path / "e", "aa11-3")


def test_several_alerts_are_accepted_as_one_version(tmp_path: Path) -> None:
    e = Evidence(tmp_path / "e", RATE, 100, notices())
    put(e, "aa11", 10, "walk")
    put(e, "bb22", 20, "walk")
    put(e, "cc33", 30, "sit")
    e.close()
    root = tmp_path / "support"
    save_clip(root / "walk" / "0.npz", make_motion("walk", seconds=2))
    version, placed = library.accept(root, ["bb22", "aa11", "bb22"], tmp_path / "e", None)
    assert placed == ["walk/alert_bb22.npz", "walk/alert_aa11.npz"] and version.clips == 3
    assert version.what == "accepted bb22, aa11, bb22 as walk"
    with pytest.raises(SupportError, match="nearest to different categories: walk, sit → name one: --category"):
        library.accept(root, ["aa11", "cc33"], tmp_path / "e", None)
    with pytest.raises(SupportError, match="a part of several alerts"):
        library.accept(root, ["aa11", "cc33"], tmp_path / "e", "both", (0.0, None))
    with pytest.raises(SupportError, match="nothing is kept of alert dd44"):
        library.accept(root, ["cc33", "dd44"], tmp_path / "e", "both")
    assert not (root / "both").exists()
    library.undo(root, None)
    assert len(list((root / "walk").iterdir())) == 1


def test_without_evidence_the_loop_keeps_nothing_and_asks_for_no_more(tmp_path: Path) -> None:
    b = bench(HeightEngine(), raise_after=2)
    b.play([message("cam", k, 1 + k / 24, {5: person(9.0)}) for k in range(100)])
    assert b.sink.alerts() and b.runtime.evidence is None


def test_an_alert_that_cannot_be_found_is_said(tmp_path: Path) -> None:
    e = Evidence(tmp_path / "e", RATE, 10, notices())
    put(e, "aa11bb", 10)
    put(e, "aa11cc", 10)
    e.close()
    for id, said in (("xyz", "is not an alert id"), ("aa", "is not an alert id"), ("../aa11", "is not an alert id")):
        with pytest.raises(SupportError, match=said):
            find(tmp_path / "e", id)
    with pytest.raises(SupportError, match="2 alerts begin with aa11"):
        find(tmp_path / "e", "aa11")
    with pytest.raises(SupportError, match="nothing is kept of alert dd44"):
        find(tmp_path / "e", "dd44")
    with pytest.raises(SupportError, match="nothing is kept"):
        find(tmp_path / "none", "dd44")
    for source in ("", "[" * 100_000):
        save_clip(tmp_path / "e" / "ee55.npz", replace(make_motion("walk", seconds=2), source=source))
        with pytest.raises(SupportError, match="does not say which alert"):
            find(tmp_path / "e", "ee55")
    (tmp_path / "e" / "ff66.npz").write_bytes(b"x")
    with pytest.raises(ClipError, match=r"ff66\.npz"):
        find(tmp_path / "e", "ff66")
