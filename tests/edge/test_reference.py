"""The whole path against the slowest way to do it: a person, a row and a joint at a time, torch for each window."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
import torch

from builder.export import load_graph
from edge.bench.site import prepare
from edge.bench.traffic import Load, cameras, recorded
from edge.bundle import Bundle, open_bundle
from edge.engine import open_engine
from edge.events import Scores
from edge.support.cache import FeatureCache
from edge.support.enrol import SupportSet, load_support
from edge.wire import Limits, PoseFrame, decode_pose

from .harness import bench

ROWS, SECOND, STRIDE, MAX_GAP = 48, 10**9, 6, 0.5
WINDOW = 2 * SECOND
Key = tuple[str, int, int]
Sight = tuple[int, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle()


@pytest.fixture(scope="module")
def support(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> SupportSet:
    root = tmp_path_factory.mktemp("s")
    found = load_support(prepare(root), bundle, open_engine(bundle), FeatureCache(root / "c"))
    return replace(found, usual=np.zeros(0))  # scores as they are, not relative to what is usual on a track


def between(a: Sight, b: Sight, when: int) -> tuple[np.ndarray, np.ndarray]:
    """A row: the pose between two frames, joint by joint, each side weighed by its nearness and confidence."""
    f = (when - a[0]) / (b[0] - a[0])
    joints, visible = np.zeros((15, 3)), np.zeros(15)
    for j in range(15):
        near, far = (1 - f) * a[2][j], f * b[2][j]
        visible[j] = near + far
        if near + far:
            joints[j] = (near * a[1][j].astype(float) + far * b[1][j].astype(float)) / (near + far)
    return joints, visible


def windows_of(stream: str, track: int, seen: list[Sight]) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
    """All windows of one track that are due."""
    out: dict[Key, tuple[np.ndarray, np.ndarray]] = {}
    phase = (crc32(stream.encode()) + track) % STRIDE
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    t0 = last = None
    for sight in seen:
        if last is not None and sight[0] <= last[0]:
            continue
        if last is None or t0 is None or sight[0] - last[0] > MAX_GAP * SECOND:
            t0, rows = sight[0], [(sight[1].astype(float), sight[2].astype(float))]
        else:
            while (when := t0 + len(rows) * WINDOW // ROWS) <= sight[0]:
                rows.append(between(last, sight, when))
                n = len(rows)
                if n == ROWS or (n > ROWS and (n - ROWS) % STRIDE == phase):
                    out[stream, track, when] = tuple(map(np.stack, zip(*rows[-ROWS:], strict=True)))  # type: ignore[assignment]
        last = sight
    return out


def by_hand(frames: list[PoseFrame], bundle: Bundle, support: SupportSet) -> dict[Key, tuple[float, float]]:
    """(stream, track, end) → distance to the nearest category by its limit, and the score."""
    seen: dict[tuple[str, int], list[Sight]] = {}
    for frame in frames:
        joints, visible, _ = frame.core15()
        for i, track in enumerate(frame.ids.tolist()):
            seen.setdefault((frame.stream, track), []).append((frame.t, joints[i], visible[i]))
    graph = load_graph(bundle).double()
    known = [torch.from_numpy(np.ascontiguousarray(x, np.float64)) for x in (support.features, support.mask)]
    out = {}
    for (stream, track), sights in seen.items():
        for key, (joints, visible) in windows_of(stream, track, sights).items():
            if visible.mean() < 0.4:
                continue
            with torch.no_grad():
                window = (torch.from_numpy(x[None].astype(np.float32).astype(np.float64)) for x in (joints, visible))
                distance = graph(*window, *known)[1][0].numpy().astype(float)
            relative = [distance[g] / support.limit[g] for g in range(len(support.names))]
            g = int(np.argmin(relative))
            out[key] = distance[g], relative[g]
    return out


@pytest.mark.parametrize(("chunk", "max_batch"), [(1, 5), (300, 64)])
def test_scores_are_those_of_the_slow_way(chunk: int, max_batch: int, bundle: Bundle, support: SupportSet) -> None:
    messages = recorded(cameras(Load(cameras=3, people=3, stay=4.0), seconds=9.0), 9.0)
    frames = [decode_pose([m], Limits()) for m in messages]
    assert any(f.visible is not None and (f.visible < 0.3).any() for f in frames if len(f.ids)), "some are hidden"
    expected = by_hand(frames, bundle, support)
    found: dict[Key, tuple[float, float]] = {}
    played = bench(support=support, max_batch=max_batch, bundle=bundle).play(messages, chunk)  # type: ignore[arg-type]
    for e in played.sink.events:
        if isinstance(e, Scores):
            for track, end, distance, score in zip(e.track, e.end, e.distance, e.score, strict=True):
                found[e.stream, track, end] = distance, score
    assert found.keys() == expected.keys() and len(found) > 60
    worst = np.abs(np.array([found[k] for k in expected]) - np.array(list(expected.values()))).max(0)
    print(f"worst difference of {len(found)} windows: distance {worst[0]:.1e}, score {worst[1]:.1e}")
    assert worst[0] < 2e-6 and worst[1] < 5e-5, worst  # a score is the distance over some hundredths
