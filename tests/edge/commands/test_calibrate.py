"""Limits refined by a recording: with the real base bundle, on motion that the support does not quite describe."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import numpy as np
import pytest
from typer.testing import CliRunner

from edge.bundle import open_bundle
from edge.cli import make_app
from edge.clip import save_clip
from edge.commands.calibrate import BELIEF, FACTORS, Refined, _levels, _Player, _Windows, refine, write_refined
from edge.engine import Engine, open_engine
from edge.errors import RecordingError, SupportError
from edge.motion import make_motion
from edge.recordings.recording import read, write
from edge.settings import Settings
from edge.support import library
from edge.support.cache import FeatureCache
from edge.support.enrol import REFINED, SupportSet, load_support
from edge.support.reload import fingerprint
from edge.support.transitions import TransitionPlan
from tests.edge.harness import HeightEngine, bench, message, person, stand, support_of

SECOND = 10**9


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(open_bundle())


@pytest.fixture
def support(tmp_path: Path) -> Path:
    root = tmp_path / "support"
    for motion in ("walk", "squat"):
        for k in range(2):
            save_clip(root / motion / f"{k}.npz", make_motion(motion, seconds=3, fps=24, seed=k))
    return root


def record(path: Path, motion: str, seconds: float, seed: int = 9, fps: float = 24) -> None:
    clip = make_motion(motion, seconds=seconds, fps=fps, seed=seed)
    with write(path) as f:
        f.add([b"pose/cam\0rubbish"], 0)
        for k, joints in enumerate(clip.joints):
            f.add([message("cam", k, 1 + k / fps, {4: joints})], k)


def load(root: Path, engine: Engine, cache: Path, **options: bool):  # type: ignore[no-untyped-def]
    return load_support(root, open_bundle(), engine, FeatureCache(cache), **options)


def test_the_level_follows_the_recording(support: Path, tmp_path: Path, engine: Engine) -> None:
    record(tmp_path / "r", "walk", 40)
    known = load(support, engine, tmp_path)
    found = refine(read(tmp_path / "r"), Settings(), open_bundle(), engine, known)
    assert found.hours == pytest.approx(40 / 3600, rel=0.01)
    assert set(found.windows) == {"walk"}, "nobody squats there"
    assert found.windows["walk"] == pytest.approx((40 - 2) / 0.25, abs=2)
    before = fingerprint(support)
    version = write_refined(support, found, recording=tmp_path / "r", model=open_bundle().model)
    assert version and version.what == "calibrated from r"
    assert write_refined(support, found, recording=tmp_path / "r", model=open_bundle().model) is None, "unchanged"
    assert fingerprint(support) != before, "the engine notices"
    moved = load(support, engine, tmp_path)
    at = moved.names.index("walk")
    assert moved.limit[at] == pytest.approx(known.limit[at] * found.levels["walk"] * found.threshold)
    assert moved.limit[1 - at] == pytest.approx(known.limit[1 - at] * found.threshold)
    assert moved.version != known.version and not moved.problems
    np.testing.assert_array_equal(load(support, engine, tmp_path, refined=False).limit, known.limit)
    library.undo(support, None)
    np.testing.assert_array_equal(load(support, engine, tmp_path).limit, known.limit)


def test_the_threshold_rises_until_the_recording_raises_no_more_than_wanted(
    support: Path, tmp_path: Path, engine: Engine
) -> None:
    record(tmp_path / "r", "squat", 20)
    known = load(support, engine, tmp_path)
    # Half the limit: what was fine alarms now, and the levels alone may not mend it, being drawn towards 1.
    strict = Settings(threshold=0.5)
    found = refine(read(tmp_path / "r"), strict, open_bundle(), engine, known)
    assert found.alarms_before > 0 and found.alarms == 0 and found.threshold > 1


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6, 1.0])
def test_the_engine_then_gives_as_many_alerts_as_were_counted(
    threshold: float, support: Path, tmp_path: Path, engine: Engine
) -> None:
    record(tmp_path / "r", "squat", 20)
    known = load(support, engine, tmp_path, transitions=TransitionPlan(most=8))
    found = refine(read(tmp_path / "r"), Settings(threshold=threshold), open_bundle(), engine, known)
    write_refined(support, found, recording=tmp_path / "r", model=open_bundle().model)
    fitted = load(support, engine, tmp_path, transitions=TransitionPlan(most=8))
    for given, counted in ((known, found.alarms_before), (fitted, found.alarms)):
        b = bench(support=given, threshold=threshold).play([item.message for item in read(tmp_path / "r")])
        assert sum(a.type == "new" for a in b.sink.alerts()) == counted
        assert b.runtime.counts.windows == sum(found.windows.values())


def test_every_window_counts_as_a_categorys_also_where_what_lies_between_is_nearest(
    support: Path, tmp_path: Path, engine: Engine
) -> None:
    record(tmp_path / "r", "walk", 40)
    plain, transitions = (
        load(support, engine, tmp_path),
        load(support, engine, tmp_path, transitions=TransitionPlan(most=8)),
    )
    assert len(transitions.transitions) == 3
    one, other = (
        refine(read(tmp_path / "r"), Settings(), open_bundle(), engine, known) for known in (plain, transitions)
    )
    assert sum(one.windows.values()) == sum(other.windows.values()) == pytest.approx((40 - 2) / 0.25, abs=2)


def test_a_short_recording_is_refused(support: Path, tmp_path: Path, engine: Engine) -> None:
    record(tmp_path / "r", "walk", 4)
    with pytest.raises(RecordingError, match="too short"):
        refine(read(tmp_path / "r"), Settings(), open_bundle(), engine, load(support, engine, tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"version": 2},
        {"threshold": -1},
        {"threshold": 0},
        {"threshold": "high"},
        {"threshold": float("inf")},
        {"threshold": 10**400},
        {"levels": 3},
        {"levels": {"walk": "x"}},
    ],
)
def test_a_calibration_that_does_not_fit_is_said_and_not_used(
    change: dict[str, object], support: Path, tmp_path: Path, engine: Engine
) -> None:
    known = load(support, engine, tmp_path)
    body = {"version": 1, "model": open_bundle().model, "levels": {"walk": 1.2}, "threshold": 1.1}
    (support / REFINED).write_text(json.dumps(body | change))
    found = load(support, engine, tmp_path)
    np.testing.assert_array_equal(found.limit, known.limit)
    assert any(REFINED in p and "not used" in p for p in found.problems)


def test_a_rule_of_normal_that_means_nothing_is_said(support: Path, tmp_path: Path, engine: Engine) -> None:
    record(tmp_path / "r", "walk", 20)
    said: list[str] = []
    s = Settings(normal={"cam": ["wlak"]})
    refine(read(tmp_path / "r"), s, open_bundle(), engine, load(support, engine, tmp_path), said.append)
    assert len(said) == 1 and "wlak" in said[0] and "cam" in said[0]


def test_the_command(support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAAD_CACHE", str(tmp_path / "cache"))
    record(tmp_path / "r", "walk", 20)
    run = CliRunner().invoke(make_app(), ["calibrate", "--support", str(support), "--from", str(tmp_path / "r")])
    assert run.exit_code == 0 and "walk: " in run.output and "squat: never the nearest" in run.output, run.output
    assert json.loads((support / REFINED).read_text())["recording"] == "r"
    assert "20 s of one person are little to judge by" in run.output.replace("\n", " "), run.output
    once = (support / REFINED).read_text()
    run = CliRunner().invoke(make_app(), ["calibrate", "--support", str(support), "--from", str(tmp_path / "r")])
    assert run.exit_code == 0 and (support / REFINED).read_text() == once, "from the bundle's own limits, each time"
    for said in ("removed", "nothing was removed"):
        run = CliRunner().invoke(make_app(), ["calibrate", "--support", str(support), "--reset"])
        assert run.exit_code == 0 and said in run.output and not (support / REFINED).exists()
    assert [v.what for v in library.versions(support)[0]][1:] == ["calibrated from r", "removed the calibration"]
    for name, what in ((f"{support}x", "no such folder"), (str(tmp_path / "r"), "is a file, not a folder")):
        e = CliRunner().invoke(make_app(), ["calibrate", "--support", name, "--reset"]).exception
        assert isinstance(e, SupportError) and e.what == f"{name}: {what}" and e.fix


def test_messages_without_a_time_are_taken_as_captured_when_they_arrived(
    support: Path, tmp_path: Path, engine: Engine
) -> None:
    record(tmp_path / "r", "walk", 40)
    with write(tmp_path / "untimed") as f:
        for k, (_, sent) in enumerate(read(tmp_path / "r")):
            topic, _, body = sent.partition(b"\0")
            if body != b"rubbish":
                value = {n: v for n, v in msgpack.unpackb(body).items() if n != "t"}
                f.add([topic, msgpack.packb(value)], round(k / 24 * SECOND))
    known = load(support, engine, tmp_path)
    one, other = (refine(read(tmp_path / n), Settings(), open_bundle(), engine, known) for n in ("r", "untimed"))
    assert other.hours == pytest.approx(one.hours) and other.windows == one.windows


def taped(path: Path, messages: list[bytes]) -> Path:
    with write(path) as f:
        for k, m in enumerate(messages):
            f.add([m], k)
    return path


def fit(path: Path, messages: list[bytes], **settings: object) -> Refined:
    """Of a recording in which distances are heights, and one category's limit is 1."""
    found = support_of("calm")
    return refine(read(taped(path, messages)), Settings(**settings), open_bundle(), HeightEngine(64), found)  # type: ignore[arg-type]


def played(path: Path, messages: list[bytes], **settings: object) -> tuple[_Player, list[_Windows]]:
    player = _Player(Settings(**settings), open_bundle(), engine := HeightEngine(64))  # type: ignore[arg-type]
    engine.bind(*(np.zeros(1), np.zeros(1)))  # type: ignore[arg-type]
    return player, list(player.play(read(taped(path, messages))))


def test_what_the_levels_mend_needs_no_wider_margin(tmp_path: Path) -> None:
    found = fit(tmp_path / "r", stand("cam", 60, {1: 1.5}), threshold=1.2)
    assert (found.alarms_before, found.alarms, found.threshold) == (1, 0, 1.0)


def test_as_many_alerts_are_left_as_were_asked_for(tmp_path: Path) -> None:
    messages = stand("cam", 60, {k: 9.0 for k in range(4)})
    asked = [fit(tmp_path / str(n), messages, false_alarms=n) for n in (1, 300)]
    assert [f.allowed for f in asked] == [0, 4] and asked[1].threshold == 1.0 < asked[0].threshold
    assert [f.alarms_before for f in asked] == [4, 4]


def test_what_begins_again_soon_is_counted_once(tmp_path: Path) -> None:
    heights = [9.0] * 120 + [0.0] * 100 + [9.0] * 120 + [0.0] * 200
    messages = [message("cam", k, 5 + k / 24, {1: person(h)}) for k, h in enumerate(heights)]
    assert fit(tmp_path / "r", messages, cool_down=10).alarms_before == 1


def test_the_hours_are_from_the_first_frame_to_the_last_of_each_camera(tmp_path: Path) -> None:
    late = message("a", 999, 5.2, {1: person()})
    player, _ = played(tmp_path / "r", [*stand("a", 10, {1: 0.0}), *stand("b", 5, {1: 0.0}), late])
    assert player.hours == pytest.approx((10 + 5 - 2 / 24) / 3600)


def test_a_track_that_comes_again_is_another_one_as_for_the_engine(tmp_path: Path) -> None:
    nobody = [message("cam", 100 + k, 8 + k / 24, {}) for k in range(72)]
    gone = [*stand("cam", 3, {1: 0.0}), *nobody, *stand("cam", 3, {1: 0.0}, start=11)]
    assert played(tmp_path / "gone", gone, track_timeout=2)[0].tracks == [("cam", 1)] * 2
    ended = [*stand("cam", 3, {1: 0.0}), message("cam", 72, 8, {}, end=True), *stand("cam", 3, {1: 0.0}, start=8.1)]
    assert played(tmp_path / "ended", ended)[0].tracks == [("cam", 1)] * 2


def test_who_is_hardly_seen_is_left_out_and_the_others_keep_their_share(tmp_path: Path) -> None:
    visible = np.ones((2, 15), np.float32)
    visible[0, :12], visible[1, :3] = 0, 0
    people = {1: person(0.1), 2: person(0.2)}
    messages = [message("cam", k, 5 + k / 24, people, visible=visible) for k in range(72)]
    player, windows = played(tmp_path / "r", messages)
    assert player.tracks == [("cam", 2)]
    for w in windows:
        assert len(w.seen) == len(w.track) and w.seen == pytest.approx(0.8) and w.distance == pytest.approx(0.2)


def test_levels_are_medians_drawn_towards_one_by_category_as_it_counts_on_its_camera() -> None:
    transitions = np.array([[0, 1]])
    support = SupportSet(
        ("a", "b"),
        np.zeros((3, 8, 8), np.float32),
        np.ones((3, 8), np.float32),
        np.array([1.0, 1.0, 2.0]),
        (3, 3),
        "v",
        usual=np.array([0.5, 0.5, 0.25]),
        transitions=transitions,
    )

    def level(rows: list[list[float]], normal: dict[str, list[str]] | None = None) -> tuple[dict[str, float], ...]:
        n = len(rows)
        distance, end = np.array(rows, np.float32), np.arange(n) * SECOND // 4
        batch = _Windows(np.zeros(n, np.intp), end, distance, np.ones(n, np.float32))
        return _levels([batch], [("cam", 1)], Settings(normal=normal or {}), support)  # type: ignore[return-value]

    def drawn(score: float, n: int) -> float:
        return float(np.exp(np.log(score) * n / (n + BELIEF)))

    levels, windows = level([[0.6, 3, 9]] * 99 + [[0.99, 3, 9]] * 41)
    assert windows == {"a": 140} and levels == pytest.approx({"a": drawn(0.6 / 0.5, 140)}, rel=1e-3)
    assert level([[9, 9, 9]] * 5000)[0] == {"a": FACTORS[1]} and level([[0.01, 9, 9]] * 5000)[0] == {"a": FACTORS[0]}
    # Where only b is normal, what is nearest to a counts as b's; and what lies between, as it does not count there.
    assert level([[0.6, 0.8, 0.1]] * 60, {"cam": ["b"]})[0] == pytest.approx({"b": drawn(0.8 / 0.5, 60)}, rel=1e-3)
    # What lies between has a score expected of its own, and counts for a second on a new track: 5 windows of 40.
    levels, windows = level([[1.3, 1.2, 0.4]] * 5)
    assert windows == {"b": 5} and levels == pytest.approx({"b": drawn(0.2 / 0.25, 5)}, rel=1e-3)
    assert level([[1.3, 1.2, 0.4]] * 40)[0] == pytest.approx({"b": drawn(1.2 / 0.5, 40)}, rel=1e-3)
