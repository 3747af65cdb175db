"""The page of `haad-edge view`: where joints are drawn, what scores say, and that nothing in a clip becomes markup."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.clip import Clip, save_clip
from edge.commands.figures import poses
from edge.commands.judged import ClipJudge, windows
from edge.commands.view import MOST, about, view
from edge.engine import open_engine, run_all
from edge.errors import ClipError, OutputError
from edge.grid import SECOND
from edge.motion import make_motion
from edge.recordings.recording import read, write
from edge.settings import Settings
from edge.skeleton import CORE15, LAYOUTS
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.support.snippet import from_recording, pieces, spans
from edge.support.transitions import TransitionPlan
from edge.wire import PoseFrame, encode_pose

L, R = CORE15.index("l_shoulder"), CORE15.index("r_shoulder")


def turned(clip: Clip, degrees: float) -> Clip:
    a = np.deg2rad(degrees)
    matrix = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]], np.float32)
    return replace(clip, joints=clip.joints @ matrix.T)


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("view")
    for action in ("walk", "wave"):
        for n in range(2):
            save_clip(root / "support" / action / f"{n}.npz", make_motion(action, seconds=4, seed=n))
    save_clip(root / "new" / "fall.npz", make_motion("fall", seconds=4, seed=5))
    save_clip(root / "new" / "walk.npz", make_motion("walk", seconds=4, seed=6))
    return root


@pytest.mark.parametrize("degrees", [0, 90, 180, 250])
def test_whichever_way_people_face_they_are_seen_from_the_front(degrees: float) -> None:
    clip = make_motion("stand", seconds=2, seed=0)
    assert np.allclose(poses(turned(clip, degrees)), poses(clip), atol=2)
    middle = np.array(poses(clip), float)[:, 2 * CORE15.index("pelvis")]
    left, right = (np.array(poses(turned(clip, degrees)), float)[:, 2 * j] for j in (L, R))
    assert (left > middle).all() and (middle > right).all(), "the person's left is on the viewer's right"


def test_2_d_clips_are_drawn_as_they_are() -> None:
    joints = np.zeros((3, 15, 3), np.float32)
    joints[..., 0], joints[..., 1] = np.arange(15) * 10, np.arange(15) * 30
    found = np.array(poses(Clip(joints, np.ones((3, 15), np.float32), 10)), float).reshape(-1, 15, 2)
    assert (np.diff(found[..., 0]) > 0).all() and (np.diff(found[..., 1]) < 0).all(), "y points up, and down on a page"
    assert found[0, 0].tolist() == [500, 1000] and found[0, 14, 1] == 0


def test_a_hidden_joint_is_not_drawn_and_a_wild_one_stays_in_the_picture() -> None:
    clip = make_motion("walk", seconds=2, seed=0)
    clip.visible[:, CORE15.index("l_wrist")] = 0
    clip.visible[10:20, CORE15.index("pelvis")] = 0
    clip.joints[30, CORE15.index("head")] = 1e5
    found = np.array(poses(clip), float)
    wrist = found[:, 2 * CORE15.index("l_wrist") :][:, :2]
    assert np.isnan(wrist).all() and not np.isnan(found[:, 2 * L]).any()
    assert np.nanmin(found) >= 0 and np.nanmax(found) <= 1000


def test_the_page_says_what_the_engine_makes_of_the_clips(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    config = tmp_path / "s.yaml"
    config.write_text(f"cache: {tmp_path / 'cache'}\n")
    view([folder / "new"], folder / "support", out, config=config)
    page = data_of(out)
    assert page["title"] == f"2 movements judged by {folder / 'support'}, 1 above the limit of normal"
    fall, walk = page["groups"][0]["clips"]
    assert (fall["title"], fall["scores"]["over"]) == ("fall.npz", True)
    assert (walk["title"], walk["scores"]["over"]) == ("walk.npz", False)
    assert walk["scores"]["joints"] == [] and walk["scores"]["moment"] is None
    assert 1 <= len(fall["scores"]["joints"]) <= 3
    begin, end = fall["scores"]["moment"]
    assert end - begin == pytest.approx(0.25, abs=0.001) and 0 <= begin < end <= 4.01
    assert page["near"][walk["scores"]["near"]]["title"].startswith("walk/")
    assert max(fall["scores"]["score"]) > 1 > max(walk["scores"]["score"])
    assert f"highest score {max(fall['scores']['score']):.2f}" in fall["notes"][fall["verdict"]]


def test_scores_are_distances_over_limits(folder: Path, tmp_path: Path) -> None:
    """As the engine's own match gives them, worked out again here."""
    s = Settings(cache=tmp_path / "cache", max_transitions=0)
    bundle = open_bundle()
    judge = ClipJudge(folder / "support", bundle, s)
    clip = make_motion("fall", seconds=4, seed=5)
    card: dict[str, Any] = {"notes": [], "start": 0.0}
    judge(clip, card)
    engine = open_engine(bundle)
    support = load_support(
        folder / "support", bundle, engine, FeatureCache(tmp_path / "cache"), transitions=TransitionPlan(s.normal, 0)
    )
    engine.bind(support.features, support.mask)
    ends = card["scores"]["end"]
    assert ends[0] == pytest.approx(2 - 2 / 48, abs=1e-3) and np.allclose(np.diff(ends), 0.25, atol=2e-3)
    for end, score in zip(ends, card["scores"]["score"], strict=True):
        times = end - np.arange(47, -1, -1) / 24
        joints, visible = clip.at(times)
        distance = run_all(engine, joints[None], visible[None])[1][0]
        assert score == pytest.approx((distance / support.limit).min(), rel=0.01)


def test_what_alerts_are_compared_by_is_their_abnormal_windows_alone(folder: Path, tmp_path: Path) -> None:
    """Somebody walks for six seconds and then falls; the walk is normal."""
    bundle = open_bundle()
    judge = ClipJudge(folder / "support", bundle, Settings(cache=tmp_path / "cache"))
    walk, fall = make_motion("walk", seconds=6, seed=0), make_motion("fall", seconds=5, seed=5)
    both = [np.concatenate([getattr(c, part) for c in (walk, fall)]) for part in ("joints", "visible")]
    card: dict[str, Any] = {"notes": [], "start": 0.0}
    found = judge(Clip(*both, walk.fps), card)
    m = bundle.manifest
    _, *cut = windows(Clip(*both, walk.fps), m.frames, m.seconds, 0.25)
    embedding, _ = run_all(judge._engine, *cut)
    high = np.array(card["scores"]["score"]) > 1
    assert found.over and 0 < high.sum() < len(high)
    expected = embedding[high].mean(0)
    assert np.allclose(found.vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert judge(walk, {"notes": [], "start": 0.0}).vector is None


def test_windows_are_whole_and_begin_a_stride_apart() -> None:
    clip = make_motion("walk", seconds=3, seed=0)
    starts, joints, visible = windows(clip, 48, 2.0, 0.25)
    assert starts.tolist() == [0, 0.25, 0.5, 0.75, 1.0] and joints.shape == (5, 48, 15, 3)
    assert np.allclose(joints[1], clip.at(0.25 + np.arange(48) / 24)[0]) and visible.shape == (5, 48, 15)
    assert len(windows(make_motion("walk", seconds=1, seed=0), 48, 2.0, 0.25)[0]) == 0
    assert len(windows(clip, 48, 2.0, 1e-6)[0]) == 26, "no more often than a window has rows"


def test_what_cannot_be_judged_says_why(folder: Path, tmp_path: Path) -> None:
    judge = ClipJudge(folder / "support", open_bundle(), Settings(cache=tmp_path / "cache"))
    hidden = make_motion("walk", seconds=3, seed=0)
    hidden.visible[:, 4:] = 0
    for clip, why in (
        (make_motion("walk", seconds=1, seed=0), "shorter than a window of 2 s"),
        (hidden, "fewer than 40% of the joints are seen"),
    ):
        card: dict[str, Any] = {"notes": ["3 s"], "start": 0.0}
        assert not judge(clip, card).over
        assert card["notes"][card["verdict"]] == f"not judged: {why}"
        assert not [v for v in card["scores"]["score"] if v is not None] and card["scores"]["near"] is None


def test_nothing_in_a_clip_or_a_name_becomes_markup(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script><!--"
    clip = replace(make_motion("walk", seconds=2, seed=0), subject=bad, source=bad)
    save_clip(tmp_path / "a<b" / "x<img src=q>.npz", clip)
    out = tmp_path / "page.html"
    view([tmp_path / "a<b"], None, out)
    text = out.read_text(encoding="utf-8")
    assert bad not in text and "<img" not in text and text.count("</script>") == 2
    (shown,) = data_of(out)["groups"][0]["clips"]
    assert shown["title"] == "x<img src=q>.npz" and shown["notes"][1] == bad
    assert "http" not in text.replace("http-equiv", ""), "nothing is loaded from elsewhere"


def test_evidence_says_which_alert_it_is_of() -> None:
    clip = make_motion("walk", seconds=2, seed=0)
    source = {"alert": "3f2a", "stream": "cam1", "track": 7, "from": 1_700_000_000 * 10**9, "category": "walk"}
    kept = replace(clip, subject="cam1/7", source=json.dumps(source))
    assert about(kept)[1:] == ["alert 3f2a: cam1, track 7, 2023-11-14 22:13:20 UTC"]
    for unlike, named in ((["l_knee", "neck"], ", most in l_knee, neck"), ([], ""), (5, "")):
        said = replace(kept, source=json.dumps({**source, "peak": 1.83, "unlike": unlike}))
        assert about(said)[2] == f"the engine said: unlike 'walk'{named}; highest score 1.83"
    for strange in ("[]", "{}", '{"from": 1e300, "alert": 1, "stream": 1, "track": 1}', "[" * 100_000):
        assert about(replace(clip, source=strange))[1] == strange[:200]


def test_who_is_never_seen_when_a_pose_is_drawn_is_an_empty_figure() -> None:
    clip = make_motion("walk", seconds=2, seed=0)
    clip.visible[:] = 0
    assert set(map(tuple, poses(clip))) == {(None,) * 30}


def test_a_glitch_does_not_shrink_the_person() -> None:
    clip = make_motion("walk", seconds=2, seed=0)
    whole = np.array(poses(clip), float)
    clip.joints[30, CORE15.index("l_wrist"), 1] = 300
    found = np.array(poses(clip), float)
    assert np.abs(found[:, 1::2] - whole[:, 1::2])[:10].max() < 30


def test_what_lasts_long_is_judged_to_its_end_in_pieces(folder: Path, tmp_path: Path) -> None:
    walk, fall = make_motion("walk", seconds=36, seed=6), make_motion("fall", seconds=4, seed=5)
    joints = np.concatenate([walk.joints, fall.joints])
    save_clip(tmp_path / "c" / "long.npz", replace(walk, joints=joints, visible=np.ones(joints.shape[:2], np.float32)))
    (tmp_path / "s.yaml").write_text(f"cache: {tmp_path / 'cache'}\n")
    view([tmp_path / "c"], folder / "support", tmp_path / "page.html", config=tmp_path / "s.yaml")
    first, second = data_of(tmp_path / "page.html")["groups"][0]["clips"]
    assert (first["title"], second["title"]) == ("long.npz at 0 s", "long.npz at 28 s")
    assert (first["scores"]["over"], second["scores"]["over"]) == (False, True)
    begin = second["scores"]["moment"][0] + 28
    assert f"from {begin:.1f} to {begin + 0.25:.1f} s" in second["notes"][-1], "in seconds of the clip, as its line"


def test_every_moment_is_in_a_whole_window_of_some_piece() -> None:
    for seconds in (0.5, 2, 29.9, 30, 30.1, 58, 59, 200):
        found = spans(seconds, 30, 2)
        assert found[0][0] == 0 and found[-1][1] == seconds and max(b - a for a, b in found) <= 30
        assert all(a[1] - b[0] == pytest.approx(2) for a, b in pairwise(found))


@pytest.mark.parametrize("name", ["mine.haad", "mine.npz", "notes.txt"])
def test_nothing_but_a_page_is_replaced(name: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"something else")
    with pytest.raises(OutputError, match="exists already, and is not an HTML page"):
        view([folder / "new"], None, path)
    assert path.read_bytes() == b"something else"
    view([folder / "new"], None, tmp_path / "page.html")
    view([folder / "new"], None, tmp_path / "page.html")


def test_what_is_normal_elsewhere_is_not_what_a_movement_is_judged_by(folder: Path, tmp_path: Path) -> None:
    s = Settings(cache=tmp_path / "cache", normal={"gate": ["wave"]})
    judge = ClipJudge(folder / "support", open_bundle(), s)
    clip = make_motion("walk", seconds=4, seed=6)
    for stream, over in (("gate", True), ("hall", False), ("", False)):
        card: dict[str, Any] = {"notes": [], "start": 0.0}
        assert judge(clip, card, stream).over is over, stream


def test_evidence_is_shown_in_order_of_time_and_an_empty_folder_is_only_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, at in (("8e", 3), ("13", 2), ("4f", 1)):
        said = json.dumps({"alert": name, "stream": "cam", "track": 1, "from": at * SECOND, "to": 0, "category": "a"})
        save_clip(tmp_path / "evidence" / f"{name}.npz", replace(make_motion("walk", seconds=2, seed=at), source=said))
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    view([tmp_path / "empty", tmp_path / "pipe", tmp_path / "evidence"], None, tmp_path / "page.html")
    shown = data_of(tmp_path / "page.html")["groups"][0]["clips"]
    assert [c["title"] for c in shown] == ["4f.npz", "13.npz", "8e.npz"]
    told = capsys.readouterr().err
    assert "empty: no .npz clip" in told and "pipe: not a usable clip" in told


def frame_of(n: int, ids: list[int], joints: np.ndarray[Any, Any]) -> bytes:
    return encode_pose(PoseFrame("cam1", n, round(n / 20 * SECOND), LAYOUTS["core15"], np.array(ids, np.int64), joints))


def test_every_track_of_a_recording_is_shown_with_the_second_that_support_add_takes(tmp_path: Path) -> None:
    """Track 7 walks for four seconds, is away for two, and comes back for three; track 8 is there for half a second."""
    walk = make_motion("walk", seconds=9, fps=20, seed=0).joints
    path = tmp_path / "today.haad"
    begun = 1_700_000_000 * SECOND
    with write(path) as file:
        for n in range(180):
            ids = [7] * (n < 80 or n >= 120) + [8] * (100 <= n < 110)
            joints = np.stack([walk[n]] * len(ids)) if ids else np.zeros((0, 15, 3))
            file.add([frame_of(n, ids, joints)], begun + n * 10**8)
    s = Settings(cache=tmp_path)
    found, upto = pieces(read(path), s, 30, 2, at=0, most=10**6)
    assert upto is None
    assert [(who, start, round(clip.seconds, 2)) for who, start, clip in found] == [
        (("cam1", 7), 0.0, 3.95),
        (("cam1", 7), 12.0, 2.95),  # by arrival, which took twice as long as what was captured
    ]
    assert np.allclose(found[1][2].joints, walk[120:180], atol=1e-5)
    who, again = from_recording(read(path), "cam1", 7, found[1][1], 30, s)
    assert who == ("cam1", 7) and np.allclose(again.joints, found[1][2].joints)
    cut, _ = pieces(read(path), s, 2.0, 0.5, at=0, most=10**6)
    expected = [(0, 2), (3, 2), (6, 0.95), (12, 2), (15, 1.45)]
    assert [(round(start, 2), round(c.seconds, 2)) for _, start, c in cut] == expected
    assert [start for _, start, _ in pieces(read(path), s, 30, 2, at=13, most=10**6)[0]] == [13.0]
    cut, upto = pieces(read(path), s, 30, 2, at=0, most=50)
    assert [round(c.seconds, 2) for _, _, c in cut] == [2.45] and upto == 5.0, "it says where it stopped"
    view([path], None, tmp_path / "page.html")
    (group,) = data_of(tmp_path / "page.html")["groups"]
    assert group["name"] == str(path)
    assert [(c["title"], c["start"]) for c in group["clips"]] == [
        ("cam1 track 7 at 0.0 s", 0),
        ("cam1 track 7 at 12.0 s", 12),
    ]


def test_files_that_are_no_clips_are_named_and_too_many_are_not_all_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = tmp_path / ".hidden"  # above what is named a hidden folder is as good as any
    monkeypatch.setattr("edge.commands.view.MOST", 3)
    for n in range(4):
        save_clip(tmp_path / "c" / f"{n}.npz", make_motion("walk", seconds=1, seed=n))
    save_clip(tmp_path / "c" / ".history" / "0.npz", make_motion("walk", seconds=1, seed=9))
    (tmp_path / "c" / "1.npz").write_bytes(b"no clip")
    view([tmp_path / "c"], None, tmp_path / "page.html")
    assert [c["title"] for c in data_of(tmp_path / "page.html")["groups"][0]["clips"]] == ["0.npz", "2.npz", "3.npz"]
    told = capsys.readouterr()
    assert "first 3" not in told.err and "1.npz: not a usable clip" in told.err
    assert "3 movements; open it in a browser" in told.out and MOST == 200
    save_clip(tmp_path / "c" / "1.npz", make_motion("walk", seconds=1, seed=1))
    view([tmp_path / "c"], None, tmp_path / "page.html")
    assert [c["title"] for c in data_of(tmp_path / "page.html")["groups"][0]["clips"]] == ["0.npz", "1.npz", "2.npz"]
    assert "only the first 3 movements are shown, up to 3.npz" in capsys.readouterr().err
    (tmp_path / "c" / "1.npz").write_bytes(b"no clip")
    with pytest.raises(ClipError, match="nothing to show"):
        view([tmp_path / "c" / "1.npz"], None, tmp_path / "page.html")
    with pytest.raises(OutputError, match="is a folder"):
        view([tmp_path / "c"], None, tmp_path)
