"""Generated clip sets on disk, written once for all the tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.made import write_set
from trainer.datasets import ClipSet, load_set


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets: `first` of four motions by four people, `second` of three by two."""
    root = tmp_path_factory.mktemp("sets")
    write_set(root / "first", ("walk", "wave", "clap", "squat"))
    write_set(root / "second", ("jog", "lift_box", "walk"), subjects=2)
    return root


@pytest.fixture(scope="session")
def sets(folder: Path) -> list[ClipSet]:
    return [load_set(folder / "first"), load_set(folder / "second")]
