"""What the programs of docs/trackers.md send is what their trackers saw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zmq

from edge.skeleton import Float
from edge.wire import Limits, PoseFrame, decode_pose

from .pages import ROOT, blocks
from .stand_ins.people import FRAMES, HEIGHT, WIDTH, walker

STAND_INS = Path(__file__).parent / "stand_ins"
PROGRAMS = [b.text for b in blocks(ROOT / "docs/trackers.md") if b.kind == "python"]


def sent(program: str, folder: Path) -> list[PoseFrame]:
    """All messages of a program, up to the end of its stream."""
    address = f"ipc://{folder}/in"
    (folder / "program.py").write_text(program.replace("tcp://127.0.0.1:5555", address))
    with zmq.Context() as context, context.socket(zmq.SUB) as poses:
        poses.subscribe(b"")
        poses.bind(address)
        poses.rcvtimeo = 60_000
        process = subprocess.Popen(
            [sys.executable, folder / "program.py"],
            env={**os.environ, "PYTHONPATH": f"{STAND_INS}:{ROOT}", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        found = []
        try:
            while not found or not found[-1].end:
                found.append(decode_pose(poses.recv_multipart(), Limits(1 << 20, 64)))
        finally:
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    return found


@pytest.mark.parametrize(
    ("program", "layout", "track", "nobody"),
    [(PROGRAMS[0], "coco17", 7, 2), (PROGRAMS[1], "mediapipe33", 0, 1)],
    ids=["ultralytics", "mediapipe"],
)
def test_every_frame_arrives_as_it_was_seen(program: str, layout: str, track: int, nobody: int, tmp_path: Path) -> None:
    *frames, _ = sent(program, tmp_path)
    assert len(frames) == FRAMES and all(f.layout.name == layout for f in frames)
    assert [len(f.ids) for f in frames] == [0] * nobody + [1] * (FRAMES - nobody)
    assert np.all(np.diff([f.t for f in frames]) > 0)
    seen: Float = walker(layout)
    for frame, expected in list(zip(frames, seen, strict=True))[nobody:]:
        assert frame.ids.tolist() == [track] and frame.size == (WIDTH, HEIGHT)
        np.testing.assert_allclose(frame.joints[0], expected[:, :2], atol=1e-2)
        assert frame.visible is not None
        np.testing.assert_allclose(frame.visible[0], expected[:, 2], atol=1e-6)
