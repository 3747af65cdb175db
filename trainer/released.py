"""Reads data sets, as their authors released them, into clips.

    HumanAct12   a folder of P<subject>G<group>R<repeat>F<from>T<to>A<action>.npy, each (T, 24, 3), SMPL's joints
                 or the ACTOR release: one pickle with `joints3D` (a list of (T, 24, 3)) and `y`
    UTD-MHAD     a folder of a<action>_s<subject>_t<trial>_skeleton.mat with `d_skel` (20, 3, T)

(HumanAct12: Guo et al., Action2Motion, ACM MM 2020. ACTOR: Petrovich et al., ICCV 2021. UTD-MHAD: Chen, Jafari and
Kehtarnavaz, ICIP 2015.)
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge.clip import Clip, from_arrays, natural
from edge.errors import ClipError
from edge.skeleton import LAYOUTS
from trainer.datasets import ClipSet

HUMANACT12 = "warm_up walk run jump drink lift_dumbbell sit eat turn_steering_wheel phone boxing throw".split()
UTD_FPS, HUMANACT12_FPS = 30.0, 20.0
# The order of d_skel's joints, as UTD-MHAD's own page lists them; the names are kinect20's.
_UTD_JOINTS = (
    "head neck spine pelvis l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist r_hand "
    "l_hip l_knee l_ankle l_foot r_hip r_knee r_ankle r_foot"
).split()
UTD_ORDER = [_UTD_JOINTS.index(name) for name in LAYOUTS["kinect20"].joints]
_UTD_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_skeleton\.mat")
_HUMANACT12_NAME = re.compile(r"P(\d+)G(\d+)R(\d+)F(\d+)T(\d+)A(\d{2})\d{2}\.npy")
# What a pickle of lists, dicts and numpy arrays is made of, under the module names of numpy 1 and 2.
_SAFE = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


def read_humanact12(path: Path) -> ClipSet:
    """Read HumanAct12 in either form; only the folder tells the subjects. Raises ClipError, which names the file."""
    return _actor_pickle(path) if path.is_file() else _humanact12_folder(path)


def read_utd_mhad(path: Path) -> ClipSet:
    """Read UTD-MHAD's skeleton files. Raises ClipError, which names the file."""
    from scipy.io import loadmat

    rows = []
    for file in _matching(path, _UTD_NAME, "a<action>_s<subject>_t<trial>_skeleton.mat"):
        action, subject, _ = map(int, _match(_UTD_NAME, file).groups())
        try:
            skeleton = np.asarray(loadmat(file)["d_skel"], np.float32)
        except (KeyError, ValueError, OSError, TypeError, NotImplementedError) as e:
            raise ClipError(f"{file}: no readable 'd_skel'", why=str(e)) from None
        if skeleton.ndim != 3 or skeleton.shape[:2] != (20, 3):
            raise ClipError(f"{file}: 'd_skel' is {skeleton.shape}, not (20, 3, T)")
        joints = skeleton.transpose(2, 0, 1)[:, UTD_ORDER]
        rows.append((f"a{action:02d}", _clip(joints, UTD_FPS, "kinect20", str(subject), "UTD-MHAD", file), file))
    return _set("utd_mhad", rows, sorted({name for name, *_ in rows}))


def _humanact12_folder(path: Path) -> ClipSet:
    rows = []
    for file in _matching(path, _HUMANACT12_NAME, "P…G…R…F…T…A….npy"):
        subject, *_, action = _match(_HUMANACT12_NAME, file).groups()
        try:
            joints = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise ClipError(f"{file}: not a readable .npy file", why=str(e)) from None
        rows.append((_humanact12_name(int(action) - 1, file), _humanact12_clip(joints, str(int(subject)), file), file))
    return _set("humanact12", rows, HUMANACT12)


def _actor_pickle(path: Path) -> ClipSet:
    with path.open("rb") as f:
        found = load_plain_pickle(f, str(path))
    if not isinstance(found, dict) or not {"joints3D", "y"} <= set(found):
        raise ClipError(f"{path}: no 'joints3D' and 'y' in this pickle", fix="use ACTOR's humanact12poses.pkl")
    if len(found["joints3D"]) != len(found["y"]):
        raise ClipError(f"{path}: {len(found['joints3D'])} clips and {len(found['y'])} labels")
    rows = []
    for n, (joints, action) in enumerate(zip(found["joints3D"], found["y"], strict=True)):
        place = path / str(n)
        rows.append((_humanact12_name(int(action), place), _humanact12_clip(np.asarray(joints), "", place), place))
    return _set("humanact12", rows, HUMANACT12)


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, numbers, strings and numpy arrays; refuses any other name before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which plain data does not need")
        return super().find_class(module, name)


def load_plain_pickle(file: IO[bytes], where: str) -> Any:
    """Load a pickle of plain data. Raises ClipError for one that would run anything."""
    try:
        return _PlainUnpickler(file).load()
    except Exception as e:
        raise ClipError(f"{where}: not a pickle of plain data", why=str(e)[:200], fix="get the file again") from None


def _humanact12_name(action: int, where: Path) -> str:
    if not 0 <= action < len(HUMANACT12):
        raise ClipError(f"{where}: action {action + 1}", why=f"HumanAct12 has only actions 1 to {len(HUMANACT12)}")
    return HUMANACT12[action]


def _humanact12_clip(joints: np.ndarray, subject: str, where: Path) -> Clip:
    return _clip(joints, HUMANACT12_FPS, "smpl24", subject, "HumanAct12", where)


def _clip(joints: np.ndarray, fps: float, layout: str, subject: str, source: str, where: Path) -> Clip:
    arrays = {"joints": joints, "fps": fps, "layout": layout, "subject": subject, "source": source}
    return from_arrays({k: np.asarray(v) for k, v in arrays.items()}, str(where))


def _matching(path: Path, name: re.Pattern[str], form: str) -> list[Path]:
    found = sorted((p for p in path.glob("*") if name.fullmatch(p.name)), key=lambda p: natural(p.name))
    if not found:
        raise ClipError(f"{path}: no file named like {form}", fix="name the folder that has the files as released")
    return found


def _match(name: re.Pattern[str], file: Path) -> re.Match[str]:
    found = name.fullmatch(file.name)
    assert found is not None, "only matching files are listed"
    return found


def _set(name: str, rows: Iterable[tuple[str, Clip, Path]], names: list[str]) -> ClipSet:
    rows = list(rows)
    sha = hashlib.sha256()
    for category, clip, path in rows:
        sha.update(f"{category}/{path.name} {clip.fps}\n".encode() + clip.joints.tobytes())
    label = np.array([names.index(category) for category, *_ in rows], np.int64)
    return ClipSet(name, [clip for _, clip, _ in rows], [p for *_, p in rows], label, names, sha.hexdigest())
