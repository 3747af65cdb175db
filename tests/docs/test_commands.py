"""README and docs: every command and every Python block is run, by `tests.docs.reader`."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
import yaml

from edge.bundle import BASE, GRAPH
from edge.cli import make_app
from edge.clip import save_clip
from edge.motion import make_motion
from edge.recordings import recording
from edge.settings import Settings
from edge.skeleton import CORE15, LAYOUTS
from edge.wire import PoseFrame, encode_pose

from .pages import PAGES, ROOT, blocks
from .reader import TINY, Reader


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: clips, a support folder, recordings of a 2-D tracker, a bundle, and the tests' tiny model."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("walk", "wave", "lift_box"):
        for subject in range(1, 5):
            for trial in (1, 2):
                clip = replace(make_motion(name, seconds=3, seed=10 * subject + trial), subject=str(subject))
                save_clip(root / "clips" / name / f"{subject}_{trial}.npz", clip)
                if trial == 1 and subject < 4:
                    save_clip(root / "support" / name / f"{subject}.npz", clip)
    for n in (1, 2, 3):
        np.save(root / f"recording_{n}.npy", as_coco17(make_motion("lift_box", seconds=5, seed=n).joints))
    shutil.copytree(BASE, root / "models" / "mine")
    (root / "models" / "mine" / GRAPH).unlink()
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with recording.write(root / "normal.haad") as f:
        for k, joints in enumerate(make_motion("walk", seconds=40, fps=20, seed=99).joints):
            frame = PoseFrame(
                "cam1", k, k * 50_000_000, LAYOUTS["core15"], np.array([1]), joints[None], None, None, False
            )
            f.add([encode_pose(frame)], k * 50_000_000)
    return root


def as_coco17(joints: np.ndarray) -> np.ndarray:
    """core15 (T, 15, 3) as a camera's coco17 keypoints (T, 17, 2) in pixels, y down; the face is one point."""
    pick = [CORE15.index(n) if n in CORE15 else CORE15.index("head") for n in LAYOUTS["coco17"].joints]
    pixels: np.ndarray = joints[:, pick, :2] * (400, -400) + (960, 900)
    return pixels


@pytest.fixture
def reader(prepared: Path, tmp_path: Path) -> Iterator[Reader]:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    with contextlib.ExitStack() as stack:
        yield Reader(tmp_path, stack)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_and_code_run(page: Path, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_in_passing_exist(page: Path) -> None:
    """`haad-edge …` within a sentence: the command, and its options."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for span in re.findall(r"`haad-edge ([^`]+)`", text):
        command: Any = typer.main.get_command(make_app())
        for word in span.split():
            if word.startswith("--"):
                assert word == "--help" or word in [o for p in command.params for o in (*p.opts, *p.secondary_opts)], (
                    span
                )
            elif hasattr(command, "commands") and word != "…":
                assert word in command.commands, span
                command = command.commands[word]


def test_the_unit_starts_a_command_that_exists() -> None:
    unit = next(b.text for b in blocks(ROOT / "docs/operate.md") if b.kind == "ini")
    words = re.search(r"^ExecStart=(.+)$", unit, re.M)[1].split()  # type: ignore[index]
    assert Path(words[0]).name == "haad-edge" and words[1] == "run"
    known = [o for p in typer.main.get_command(make_app()).commands["run"].params for o in p.opts]  # type: ignore[attr-defined]
    assert [w for w in words if w.startswith("--") and w not in known] == []
    for name in re.findall(r"HAAD_(\w+)=", unit):
        assert name.lower() in Settings.model_fields
