"""The main job on real input: UTD-MHAD's test subjects are watched, three clips of others say what is normal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge.bundle import open_bundle
from edge.clip import categories, load_clip
from edge.engine import open_engine
from edge.events import Scores
from edge.recordings.playback import play
from edge.skeleton import LAYOUTS
from edge.support.cache import FeatureCache
from edge.support.enrol import load_support
from edge.wire import PoseFrame, encode_pose
from tests.edge.harness import Bench, bench

from .conftest import START_NS, Engine, cameras, send_clips

CAMERAS = 8
# Every sixth and seventh of the 27: spread over the whole list, not chosen by result.
CHOSEN = (0, 6, 13, 20, 26)


def split(data: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Clips by category: of the training subjects (odd), and of the test subjects (even)."""
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name, files in categories(data / "utd_mhad").items():
        for f in files:
            (train if int(load_clip(f).subject) % 2 else test).setdefault(name, []).append(f)
    return train, test


@pytest.mark.timeout(240)
def test_three_clips_tell_a_category_from_others_over_eight_cameras(
    data: Path, tmp_path: Path, start: Callable[..., Engine]
) -> None:
    train, test = split(data)
    names = list(train)
    rng = np.random.default_rng(0)
    auroc: dict[str, float] = {}
    for chosen in CHOSEN:
        normal = names[chosen]
        support = tmp_path / normal / "support" / normal
        support.mkdir(parents=True)
        for f in rng.permutation(np.array(train[normal], dtype=object))[:3]:
            shutil.copy(f, support / f"{f.stem}.npz")
        others = [f for n in names if n != normal for f in test[n]]
        plan = [
            [*test[normal][i::CAMERAS], *(others[k] for k in rng.choice(len(others), 4, replace=False))]
            for i in range(CAMERAS)
        ]
        engine = start(support.parent)
        play = partial(send_clips, engine.ingest, seconds=5, speed=12)
        sent = cameras([partial(play, f"cam{i}", clips) for i, clips in enumerate(plan)])
        status = engine.until_frames(sent)
        assert engine.stop() == 0
        assert (status.frames, status.frames_lost, engine.subscriber.missed) == (sent, 0, 0)

        windows = [
            (score, plan[int(e.stream[3:])][track].parent.name != normal)
            for e in engine.events
            if isinstance(e, Scores)
            for track, score in zip(e.track, e.score, strict=True)
        ]
        # 5 s a clip: 12 or 13 windows of 2 s, every 0.25 s.
        assert len(windows) >= 12 * sum(map(len, plan))
        scores, anomalous = map(np.array, zip(*windows, strict=True))
        auroc[normal] = roc_auc_score(anomalous, scores)
    print({k: round(v, 4) for k, v in auroc.items()})
    assert np.mean(list(auroc.values())) >= 0.95, auroc


def test_evaluate_finds_the_base_bundle_good_on_categories_it_has_seen(data: Path, tmp_path: Path) -> None:
    figures = tmp_path / "f.json"
    command = ["evaluate", "--data", str(data / "utd_mhad"), "--shots", "3", "--split", "subject"]
    subprocess.run(
        [sys.executable, "-m", "edge.cli", *command, "--json", str(figures)],
        check=True,
        capture_output=True,
        timeout=200,
    )
    found = json.loads(figures.read_text())
    assert len(found["categories"]) == 27 and found["clips"] == 861
    assert found["mean"] >= 0.99 > found["floor"]["mean"]


FPS_TOLERANCE = 0.12
"""Of the score, where 1 is the limit. A Kinect's 30 fps are noisy; a camera of 15 sees every other frame of it."""


def test_real_clips_at_other_frame_rates_and_batch_sizes_give_the_same_decisions(data: Path, tmp_path: Path) -> None:
    train, test = split(data)
    support = tmp_path / "support"
    for name in ("a13_boxing", "a22_jog", "a27_squat"):
        (support / name).mkdir(parents=True)
        for f in train[name][:3]:
            shutil.copy(f, support / name)
    bundle = open_bundle()
    features = load_support(support, bundle, open_engine(bundle), FeatureCache(tmp_path / "cache"))
    paths = [
        test[name][1] for name in ("a13_boxing", "a12_bowling", "a22_jog", "a27_squat", "a24_sit_to_stand", "a05_throw")
    ]

    def judged(fps: float, **settings: object) -> Bench:
        frames = [
            PoseFrame("cam", k, START_NS + round(s.t * 1e9), LAYOUTS["core15"], np.array(s.ids), s.joints, s.visible)
            for k, s in enumerate(play(paths, fps=fps, people=3, seconds=5))
        ]
        return bench(support=features, **settings).play([encode_pose(f) for f in frames], chunk=7)

    usual = judged(30)
    expected = usual.sink.scores()
    alerts = [(a.type, a.track) for a in usual.sink.alerts() if a.type != "update"]
    # Who plays next stands where the last one stood, and so may go on with that one's alert.
    assert {a.track for a in usual.sink.alerts()} >= {1, 4, 5} and len(expected) == 6 * 13
    for fps, settings, tolerance in ((30, {"max_batch": 5}, 1e-3), (60, {}, FPS_TOLERANCE), (15, {}, FPS_TOLERANCE)):
        other = judged(fps, **settings)  # type: ignore[arg-type]
        found = other.sink.scores()
        both = expected.keys() & found.keys()
        worst = max(abs(found[k] - expected[k]) for k in both)
        print(f"{fps} fps {settings}: worst difference {worst:.4f} over {len(both)} windows")
        assert len(both) >= 0.9 * len(expected) and worst < tolerance
        assert sorted((a.type, a.track) for a in other.sink.alerts() if a.type != "update") == sorted(alerts)
