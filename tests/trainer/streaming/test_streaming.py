"""Streams assembled, watched and measured, compared with what is known about them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.alerts.book import AlertBook
from edge.cli import make_app
from edge.clip import Clip, save_clip
from edge.motion import make_motion
from edge.score import TrackBaseline
from edge.settings import Settings
from trainer.datasets import ClipSet
from trainer.streaming.measure import DEFAULT, GRID, OURS, Outcome, at_rate, curve, frame_scores, newest_scores
from trainer.streaming.report import as_json, markdown, summarise, tables, write_page
from trainer.streaming.takes import StreamPlan, Take, make_takes
from trainer.streaming.watch import Run, alerts, follow, watch

PLAN = StreamPlan(clean=12, anomalies=4, pause=(2, 3))
S = Settings()


def heights(people: int = 2, categories: int = 3) -> ClipSet:
    """Clips in which category c is at height 10·c, person p is 1·p higher, and the frames tell a clip's time."""
    clips, label = [], []
    for p in range(people):
        for c in range(categories):
            for k in range(2):
                joints = np.zeros((61, 15, 3), np.float32)
                joints[..., 1] = 10 * c + p + 0.1 * k
                joints[..., 2] = np.arange(61)[:, None] / 30
                clips.append(Clip(joints, np.ones((61, 15), np.float32), 30, str(p + 1)))
                label.append(c)
    return ClipSet("h", clips, [Path()] * len(clips), np.array(label), [f"c{c}" for c in range(categories)], "")


def takes(plan: StreamPlan = PLAN, **options: int) -> list[Take]:
    data = heights()
    return list(make_takes(data, np.ones(len(data.clips), bool), plan, **options))


def test_a_take_is_normal_but_for_its_anomalies_which_are_of_other_categories() -> None:
    found = takes()
    assert [(t.person, t.normal) for t in found] == [(p, (f"c{c}",)) for p in "12" for c in range(3)]
    for t in found:
        height = t.joints[:, 0, 1] - (int(t.person) - 1)
        own = int(t.normal[0][1]) * 10
        assert len(t.spans) == 4 and t.clean >= 12 and t.spans[0].start > t.clean
        normal = np.ones(len(t.time), bool)
        for span in t.spans:
            assert span.category not in t.normal
            inside = (t.time > span.start) & (t.time < span.end)
            # Between the middles of the seams the body is more the anomaly's than the normal action's.
            other = int(span.category[1]) * 10
            assert (np.abs(height[inside] - other) < np.abs(height[inside] - own) + 0.2).all()
            normal &= (t.time < span.start) | (t.time > span.end)
        assert (np.abs(height[normal] - own) <= 10.2).all() and np.median(np.abs(height[normal] - own)) < 0.2
        gaps = np.diff([x for s in t.spans for x in (s.start, s.end)])[1::2]
        assert gaps.min() >= 1.5
        lengths = [s.end - s.start for s in t.spans]
        assert min(lengths) > 0.4 and max(lengths) < 4.5


def test_it_follows_from_the_seed_and_moves_without_jumps() -> None:
    one, two, other = takes(seed=1), takes(seed=1), takes(seed=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.joints, b.joints)
        assert a.spans == b.spans
    assert one[0].spans != other[0].spans
    for t in one:
        # A seam of 0.2 s at the least moves ten metres in six frames; the ground position never jumps at all.
        step = np.abs(np.diff(t.joints, axis=0))
        assert step[..., 1].max() < 20.5 / (0.2 * 30) + 0.5 and step[..., 2].max() < 0.15


def test_several_normal_categories_take_turns() -> None:
    (t, *_) = takes(replace(PLAN, clean=60, anomalies=3), normals=2)
    assert len(t.normal) == 2 and {s.category for s in t.spans}.isdisjoint(t.normal)
    here = t.time < t.clean
    heights = np.round(t.joints[here, 0, 1] / 10).astype(int)
    assert {int(n[1]) for n in t.normal} <= set(heights.tolist())


def test_a_bad_camera_loses_frames_changes_its_rate_and_hides_limbs() -> None:
    (t, *_) = takes(replace(PLAN, clean=60, faults=True))
    step = np.diff(t.time)
    assert (step > 0).all() and step.min() < 1 / 25 and step.max() > 0.1 and step.max() < S.max_gap
    assert 0.8 < t.visible.mean() < 1 and (t.joints[t.visible == 0] == 0).all()
    assert len(t.time) < 30 * t.seconds * 0.9


def height_of(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
    return np.stack([joints[:, -1, 0, 1], joints[:, 0, 0, 1], visible.mean((1, 2))], 1)


def test_watching_gives_each_take_its_own_windows() -> None:
    some = takes()
    found = watch(some, [height_of], frames=48, seconds=2.0, s=S)
    for t, w in zip(some, found, strict=True):
        assert w.end[0] == pytest.approx(47 / 24, abs=1e-6) and w.end[1] - w.end[0] < 0.25 + 1e-6
        np.testing.assert_allclose(np.diff(w.end[1:]), 0.25, atol=1e-6)
        assert w.end[-1] <= t.seconds < w.end[-1] + 0.25
        # Each window's last row is the pose at its end, its first that of two seconds (47 rows) before.
        for column, ago in ((0, 0.0), (1, 47 / 24)):
            pose = np.interp(w.end - ago, t.time, t.joints[:, 0, 1])
            np.testing.assert_allclose(w.features[0][:, column], pose, atol=1e-3)
        np.testing.assert_allclose(w.seen, 1, atol=1e-6)


def test_runs_in_step_are_judged_like_runs_alone() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for n in (50, 80, 30):
        score = np.exp(rng.normal(-0.3, 0.5, n)).astype(np.float32)
        score[rng.random(n) < 0.1] = np.nan
        runs.append(Run(2 + 0.25 * np.arange(n), score, rng.uniform(0.8, 1, n)))
    together, raised = follow(runs, [0.6, 0.7, 0.6]), alerts(runs, S, 1.1)
    for i, (run, level) in enumerate(zip(runs, [0.6, 0.7, 0.6], strict=True)):
        usual = TrackBaseline(1)
        book = AlertBook(
            1,
            threshold=1.1,
            release=S.release,
            raise_after=S.raise_after,
            clear_after=S.clear_after,
            update_every=S.update_every,
            cool_down=S.cool_down,
        )
        slot, news = np.array([0]), []
        for k in np.flatnonzero(np.isfinite(run.score)):
            score = run.score[k : k + 1]
            assert together[i].score[k] == usual(slot, score, np.array([level]), run.seen[k : k + 1])[0]
            end = np.array([round(run.end[k] * 1e9)])
            news += [run.end[k] for c in book.update(slot, end, score, str) if c.type == "new"]
        np.testing.assert_array_equal(raised[i], news)
        assert np.isnan(together[i].score).sum() == np.isnan(run.score).sum()
    assert sum(map(len, raised)) > 1


def test_a_frame_is_judged_by_the_windows_around_it() -> None:
    end = 2 + 0.25 * np.arange(40)
    score = np.zeros(40, np.float32)
    score[20] = 1  # the window from 5 to 7 s
    run = Run(end, score, np.ones(40))
    t = np.arange(2, 11, 0.05)
    hindsight, at_once = frame_scores(run, t, 2.0), newest_scores(run, t)
    assert t[hindsight.argmax()] == pytest.approx(6, abs=0.06)
    assert (hindsight[np.abs(t - 6) > 1.05] < 1e-6).all()
    np.testing.assert_array_equal(at_once == 1, (t > 7 - 1e-9) & (t < 7.25 - 1e-9))
    np.testing.assert_allclose(frame_scores(Run(end, score * 0 + 3, run.seen), t, 2.0), 3, rtol=1e-6)
    assert (frame_scores(Run(end, np.full(40, np.nan, np.float32), run.seen), t, 2.0) == 0).all()


def outcome(normal: str, shots: int = 3, method: str = OURS, found: float = 0.8, false: int = 1) -> Outcome:
    n = len(GRID)
    delay = np.full((n, 4), np.inf)
    delay[: DEFAULT + 1, :3] = found
    return Outcome(
        method, normal, "2", shots, 0.9, 0.8, 0.5, np.full(n, false), np.array([2.0, 3.0, 1.0, 4.0]), ("x",) * 4, delay
    )


def test_the_figures_of_a_curve_by_hand() -> None:
    points = curve([outcome("a", found=0.8, false=1), outcome("b", found=1.2, false=2)])
    p = points[DEFAULT]
    # Three alarms in an hour; of two times three long anomalies two thirds are found, of the short ones all.
    assert (p.threshold, p.false_alarms) == pytest.approx((1, 3))
    assert (p.recall, p.recall_short, p.delay) == pytest.approx((2 / 3, 1, 1.2))
    assert points[-1].recall == 0 and points[-1].delay == np.inf
    assert at_rate(points, 3) == points[0] and at_rate(points, 1) == points[-1]


def test_the_report_says_it_all(tmp_path: Path) -> None:
    found = summarise(
        [outcome(n, k) for n in ("walk<b>", "wave") for k in (1, 3)] + [outcome("wave", 3, "floor: raw DCT")]
    )
    assert found.main == 3 and set(found.by_shots) == {1, 3} and found.floor is not None
    assert [r.name for r in found.by_category] == ["walk<b>", "wave"]
    assert found.missed[0] == ("walk<b>", "x", 0.75, 4)
    figures = json.loads(json.dumps(as_json(found)))
    assert figures["by_shots"]["3"]["recall"] == pytest.approx(0.6667) and figures["curves"][OURS][-1]["delay"] is None
    text = markdown(found)
    assert (
        "| 3 clips | 0.9000 | 0.8000 | 66.7% | 100.0% | 0.80 s | 2.0 |" in text and "| walk<b> | x | 75% of 4 |" in text
    )
    assert len(tables(found, "t")) == 2
    page = write_page(tmp_path, found, title="A<b>", about="b & c", note="n").read_text()
    assert "walk&lt;b&gt;" in page and "A&lt;b&gt;" in page and page.count("<svg") == 2 and "<b>66.7%</b>" in page


def test_the_command_on_streams_of_made_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for motion in ("walk", "squat", "wave"):
        for person in range(1, 5):
            clip = make_motion(motion, seconds=2.5, fps=30, seed=10 * person)
            save_clip(tmp_path / "data" / motion / f"{person}.npz", replace(clip, subject=str(person)))
    command = ["evaluate", "--data", str(tmp_path / "data"), "--streaming", "--shots", "1,2", "--draws", "2"]
    command += [
        "--minutes",
        "0.3",
        "--people",
        "2,4",
        "--json",
        str(tmp_path / "f.json"),
        "--report",
        str(tmp_path / "r"),
    ]
    run = CliRunner().invoke(make_app(), command)
    assert run.exit_code == 0, run.output
    assert "2 clips" in run.output and "floor" in run.output and "person 4" in run.output
    found = json.loads((tmp_path / "f.json").read_text())
    assert set(found["by_shots"]) == {"1", "2"} and [r["name"] for r in found["by_category"]] == [
        "squat",
        "walk",
        "wave",
    ]
    # Generated motions of four people are alike, and the three actions are not: this is easy, for the floor as well.
    assert found["by_shots"]["2"]["auroc"] > 0.9 and found["by_shots"]["2"]["recall"] > 0.7
    assert found["by_shots"]["2"]["false_alarms"] < 20
    assert (tmp_path / "r" / "streaming.html").exists()
