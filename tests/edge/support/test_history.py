"""What a history that comes from elsewhere may say, and what it may not do."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge.clip import save_clip
from edge.errors import SupportError
from edge.motion import make_motion
from edge.support import history, library
from edge.support.enrol import read_refined

DIGEST = hashlib.sha256(b"mine").hexdigest()
VERSION: dict[str, Any] = {"number": 9, "date": "", "what": "", "back": 1, "files": {"walk/0.npz": DIGEST}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "a" / "support"
    save_clip(found / "walk" / "0.npz", make_motion("walk", seconds=2))
    with history.changing(found):
        (found / history.FOLDER / "objects" / DIGEST).write_bytes(b"mine")
    return found


@pytest.mark.parametrize("name", ["../x.npz", "walk/../../x.npz", "../../x", "/{}/x", "..", ".profile", "a/b/c.npz"])
def test_a_change_left_behind_writes_nothing_outside_the_folder(root: Path, name: str) -> None:
    """Reading a folder completes a change that was cut off, whoever began it."""
    pending = {**VERSION, "files": {name.format(root.parent): DIGEST}}
    (root / history.FOLDER / "pending.json").write_text(json.dumps(pending))
    before = sorted(root.parent.parent.rglob("*"))
    with pytest.raises(SupportError, match=r"pending\.json"), history.reading(root):
        pass
    assert sorted(p for p in root.parent.parent.rglob("*") if p.name != "lock") == [
        p for p in before if p.name != "lock"
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"number": {}},
        {"back": "1"},
        {"date": []},
        {"what": None},
        {"files": 5},
        {"files": {"walk/0.npz": 5}},
        {"files": {"walk/0.npz": "../../versions/1.json"}},
        {"files": {"walk/\0.npz": DIGEST}},
        {"files": {"\ud800/0.npz": DIGEST}},
    ],
    ids=str,
)
def test_a_version_with_a_field_of_another_type_is_refused_by_its_file(root: Path, change: dict[str, Any]) -> None:
    library.remove(save_another(root), "wave")
    (root / history.FOLDER / "versions" / "000009.json").write_text(json.dumps({**VERSION, **change}))
    with pytest.raises(SupportError, match=r"000009\.json"):
        library.versions(root)


def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / history.FOLDER / "pending.json")
    with pytest.raises(SupportError, match=r"pending\.json.*not a regular file"), history.reading(root):
        pass
    (root / "calibration.json").symlink_to("/dev/zero")
    found = read_refined(root, ["walk"], "")
    assert "calibration.json: not used: cannot be read (it is not a regular file)" in found.problems[0]


def save_another(root: Path) -> Path:
    save_clip(root / "wave" / "0.npz", make_motion("wave", seconds=2))
    return root
