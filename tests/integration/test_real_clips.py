"""The main job on real input: UTD-MHAD's test subjects are watched, three clips of others say what is normal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge.clip import categories, load_clip
from edge.wire import Scores

from .conftest import Engine, cameras, send_clips

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
