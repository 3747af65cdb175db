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
from edge.engine import Engine, open_engine
from edge.errors import RecordingError
from edge.motion import make_motion
from edge.recording import read, write
from edge.refine import refine, write_refined
from edge.reload import fingerprint
from edge.settings import Settings
from edge.support import REFINED, FeatureCache, load_support
from edge.turns import TurnPlan
from tests.edge.harness import bench, message

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
    path = write_refined(support, found, recording=tmp_path / "r", model=open_bundle().model)
    assert fingerprint(support) != before, "the engine notices"
    moved = load(support, engine, tmp_path)
    at = moved.names.index("walk")
    assert moved.limit[at] == pytest.approx(known.limit[at] * found.levels["walk"] * found.threshold)
    assert moved.limit[1 - at] == pytest.approx(known.limit[1 - at] * found.threshold)
    assert moved.version != known.version and not moved.problems
    np.testing.assert_array_equal(load(support, engine, tmp_path, refined=False).limit, known.limit)
    path.unlink()
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
    known = load(support, engine, tmp_path, turns=TurnPlan(most=8))
    found = refine(read(tmp_path / "r"), Settings(threshold=threshold), open_bundle(), engine, known)
    write_refined(support, found, recording=tmp_path / "r", model=open_bundle().model)
    fitted = load(support, engine, tmp_path, turns=TurnPlan(most=8))
    for given, counted in ((known, found.alarms_before), (fitted, found.alarms)):
        b = bench(support=given, threshold=threshold).play([item.message for item in read(tmp_path / "r")])
        assert sum(a.type == "new" for a in b.sink.alerts()) == counted
        assert b.runtime.counts.windows == sum(found.windows.values())


def test_every_window_counts_as_a_categorys_also_where_what_lies_between_is_nearest(
    support: Path, tmp_path: Path, engine: Engine
) -> None:
    record(tmp_path / "r", "walk", 40)
    plain, turns = load(support, engine, tmp_path), load(support, engine, tmp_path, turns=TurnPlan(most=8))
    assert len(turns.turns) == 3
    one, other = (refine(read(tmp_path / "r"), Settings(), open_bundle(), engine, known) for known in (plain, turns))
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
        {"threshold": "high"},
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
    assert run.exit_code == 0 and "walk: " in run.output and "squat: never nearest" in run.output, run.output
    assert json.loads((support / REFINED).read_text())["recording"] == "r"
    for said in ("gone", "is not there"):
        run = CliRunner().invoke(make_app(), ["calibrate", "--support", str(support), "--reset"])
        assert run.exit_code == 0 and said in run.output and not (support / REFINED).exists()


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
