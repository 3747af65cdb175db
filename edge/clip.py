"""Reads and writes clip files (`.npz`) and folders of them, which support sets and training sets are made of.

<dir>/<category>/<subject>_<trial>.npz     joints (T, J, C) float32, fps, layout
                                           optional: visible (T, J), subject, source
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ClipError
from edge.outputs import naming
from edge.skeleton import LAYOUTS, THRICE, Float, cleaned

MAX_FRAMES = 200_000
MAX_FILE_BYTES = 256 << 20
HELP = "see 'Clip files' in docs/start.md"
TINY = np.float32(1e-30)
"""Smaller than any share of a visibility; avoids a division by zero."""
BRIDGE_S = 0.15
"""Seconds in which a looped clip moves from its last pose back to its first."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of one person, already in core15: joints (T, 15, 3) metres y-up, visible (T, 15) in [0, 1]."""

    joints: Float
    visible: Float
    fps: float
    subject: str = ""
    source: str = ""

    @property
    def seconds(self) -> float:
        """The time from the first frame to the last."""
        return (len(self.joints) - 1) / self.fps

    def at(self, times: NDArray[np.floating]) -> tuple[Float, Float]:
        """The pose at `times` (N,) seconds, linear between frames, held beyond the ends: (N, 15, 3), (N, 15).

        Between a frame that shows a joint and one that hides it, the visible place is used and the visibility blended.
        """
        return _interpolate(self.joints, self.visible, np.asarray(times) * self.fps)

    def part(self, begin: float, end: float) -> Clip:
        """The frames from `begin` to `end` seconds."""
        rows = slice(round(begin * self.fps), round(end * self.fps) + 1)
        return replace(self, joints=self.joints[rows], visible=self.visible[rows])

    def resampled(self, frames: int) -> tuple[Float, Float]:
        """The whole clip on `frames` equal steps, whatever its length: joints (frames, 15, 3), visible (frames, 15)."""
        return self.at(np.linspace(0, self.seconds, frames))

    def looped(self, times: NDArray[np.floating]) -> tuple[Float, Float]:
        """Like `at`, with the clip repeated for ever: after a short bridge it starts again where it ended.

        The position on the ground carries over from round to round, so that a walk goes on.
        """
        period = self.seconds + BRIDGE_S
        rounds, phase = np.divmod(np.asarray(times, np.float64), period)
        travel = _ground_travel(self.joints, self.visible)
        first = np.where(self.visible[:1, :, None] > 0, self.joints[:1] + travel, 0)
        joints = np.concatenate([self.joints, first])
        visible = np.concatenate([self.visible, self.visible[:1]])
        # The bridge is one long interval at the end: map its share of the time axis onto one step of the index.
        bridge = np.maximum(phase - self.seconds, 0) / BRIDGE_S
        j, v = _interpolate(joints, visible, np.minimum(phase, self.seconds) * self.fps + bridge)
        carried = (rounds[:, None, None] * travel).astype(np.float32)
        return np.where(v[..., None] > 0, j + carried, j), v


def _ground_travel(joints: Float, visible: Float) -> Float:
    """How far the body's centre moved over the ground from the first to the last frame: (3,) with y = 0."""
    both = (visible[0] > 0) & (visible[-1] > 0)
    if not both.any():
        return np.zeros(3, np.float32)
    travel: Float = (joints[-1][both] - joints[0][both]).mean(0)
    return travel * np.array([1, 0, 1], np.float32)


def ground(joints: Float, visible: Float) -> Float:
    """Where the first of poses (N, 15, 3), visible (N, 15), stands on the ground: (3,) with y = 0."""
    seen = visible[0] > 0
    centre = joints[0][seen].mean(0) if seen.any() else np.zeros(3)
    return np.array([centre[0], 0, centre[2]], np.float32)


def _interpolate(joints: Float, visible: Float, index: NDArray[np.floating]) -> tuple[Float, Float]:
    index = np.clip(index, 0, len(joints) - 1)
    lo = np.minimum(index.astype(np.intp), len(joints) - 1)
    hi = np.minimum(lo + 1, len(joints) - 1)
    f = (index - lo).astype(np.float32)[:, None]
    return blend(joints[lo], visible[lo], joints[hi], visible[hi], f)


def blend(j0: Float, v0: Float, j1: Float, v1: Float, f: Float) -> tuple[Float, Float]:
    """The pose a fraction `f` (N, 1) of the way from (j0, v0) to (j1, v1); joints (N, 15, 3), visible (N, 15).

    Where only one side sees a joint, its place is used, and its visibility is weighted by that side's share.
    """
    seen = v1 * f
    total = v0 * (1 - f)
    total += seen
    share = np.divide(seen, np.maximum(total, TINY), out=seen)
    # j0 is 0 where nothing was seen, so a joint hidden on both sides stays 0.
    step = j1 - j0
    step *= (share @ THRICE).reshape(j0.shape)
    step += j0
    return step, total


def load_clip(path: Path | str) -> Clip:
    """Read one clip file and map it onto core15. Raises ClipError naming the file and the field."""
    return parse_clip(clip_bytes(path), str(path))


def clip_bytes(path: Path | str) -> bytes:
    """The content of a clip file, if it is a file and not too large. Raises ClipError."""
    path = Path(path)
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            raise ClipError(f"{path}: not a usable clip", why="it is not a regular file")
        if stat.st_size > MAX_FILE_BYTES:
            raise ClipError(
                f"{path}: not a usable clip",
                why=f"the file is larger than {MAX_FILE_BYTES >> 20} MiB",
                fix="cut it into shorter clips",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise ClipError(f"{path}: no such clip file") from None
    except OSError as e:
        raise ClipError(f"{path}: cannot be read", why=e.strerror or str(e)) from None


def parse_clip(data: bytes, where: str) -> Clip:
    """Read a clip from a file's content. Raises ClipError that names `where` and the field."""
    try:
        fields = _read_npz(io.BytesIO(data))
    except Exception as e:  # zipfile, zlib and numpy raise many kinds over a damaged file
        raise ClipError(
            f"{where}: not a usable clip", why=f"it cannot be read as .npz without pickle ({e})", fix=HELP
        ) from None
    return from_arrays(fields, where)


def _read_npz(path: IO[bytes]) -> dict[str, NDArray[Any]]:
    """The clip's arrays. Raises ValueError for one that unpacks to more than MAX_FILE_BYTES, or any exception."""
    fields: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as z:
        members = set(z.namelist())
        for key in ("joints", "fps", "layout", "visible", "subject", "source"):
            if (name := f"{key}.npy") not in members:
                continue
            if z.getinfo(name).file_size > MAX_FILE_BYTES:
                raise ValueError(f"'{key}' unpacks to more than {MAX_FILE_BYTES >> 20} MiB")
            with z.open(name) as f:
                try:
                    fields[key] = found = np.lib.format.read_array(f, allow_pickle=False)
                    if found.dtype.kind == "U":  # numpy would make text of any numbers, which crashes Python later
                        found.tobytes().decode("utf-32-be" if found.dtype.str[0] == ">" else "utf-32-le")
                except Exception as e:
                    raise ValueError(f"'{key}': {e}") from None
    return fields


def from_arrays(fields: dict[str, NDArray[Any]], where: str) -> Clip:
    """Check the arrays of a clip file and map them onto core15. Raises ClipError that names `where`."""

    def error(why: str, fix: str = HELP) -> ClipError:
        return ClipError(f"{where}: not a usable clip", why=why, fix=fix)

    for key in ("joints", "fps", "layout"):
        if key not in fields:
            raise error(f"the array '{key}' is missing")
    joints, visible = np.asarray(fields["joints"]), fields.get("visible")
    name = str(fields["layout"])
    if name not in LAYOUTS:
        raise error(f"unknown layout {name!r:.60}", f"use one of: {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    if joints.ndim != 3 or joints.shape[2] not in (2, 3) or joints.dtype.kind not in "fiu":
        raise error(f"'joints' is {joints.dtype} {joints.shape}, not numbers (T, J, 2 or 3)")
    if joints.shape[1] != layout.size:
        raise error(f"'joints' has {joints.shape[1]} joints, layout {layout.name} has {layout.size}")
    if not 2 <= len(joints) <= MAX_FRAMES:
        raise error(f"{len(joints)} frames; a clip has 2 to {MAX_FRAMES}")
    if np.size(fields["fps"]) != 1 or fields["fps"].dtype.kind not in "fiu":
        raise error("'fps' is not one number")
    fps = float(np.ravel(np.asarray(fields["fps"], float))[0])
    if not 1 <= fps <= 1000:
        raise error(f"'fps' is {fps:g}, not between 1 and 1000")
    if visible is not None and (visible.shape != joints.shape[:2] or visible.dtype.kind not in "fiub"):
        raise error(f"'visible' is {visible.dtype} {visible.shape}, not numbers {joints.shape[:2]}")
    clean, seen, _ = cleaned(joints, None if visible is None else np.asarray(visible, np.float32))
    if not seen.any():
        raise error("no joint is visible in any frame; two or more joints at the origin count as not found")
    core, seen = layout.to_core15(clean, seen)
    if not _holds_a_pose(core, seen):
        raise error("it holds no pose: in every frame all visible joints are at the same place")
    texts = (str(np.ravel(fields[k])[0]) if k in fields and fields[k].size else "" for k in ("subject", "source"))
    return Clip(core, seen, fps, *texts)


def _holds_a_pose(joints: Float, visible: Float) -> bool:
    """Whether two visible joints are apart in any frame; a tracker that lost its person may write zeros."""
    there = visible[..., None] > 0
    extent = np.where(there, joints, -np.inf).max(1) - np.where(there, joints, np.inf).min(1)
    return bool((extent > 1e-6).any())


def save_clip(path: Path | str, clip: Clip) -> None:
    """Write a core15 clip file."""
    path = Path(path)
    data = pack_clip(clip)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def pack_clip(clip: Clip) -> bytes:
    """The content of a core15 clip file."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        joints=clip.joints.astype(np.float32),
        visible=clip.visible.astype(np.float32),
        fps=np.float32(clip.fps),
        layout="core15",
        subject=clip.subject,
        source=clip.source,
    )
    return buffer.getvalue()


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key under which '2' comes before '10'."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", text) if p]


def categories(root: Path | str) -> dict[str, list[Path]]:
    """Category name → its clip files, both in natural order. Raises ClipError when `root` holds none."""
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise ClipError(f"{root}: {what}", fix="make it as DIR/<category>/<clip>.npz")
    found = {
        folder.name: sorted(folder.glob("*.npz"), key=lambda p: natural(p.name))
        for folder in sorted(root.iterdir(), key=lambda p: natural(p.name))
        if folder.is_dir() and not folder.name.startswith(".")
    }
    found = {name: files for name, files in found.items() if files}
    if not found and any(root.glob("*.npz")):
        raise ClipError(
            f"{root}: one category, not a set of categories",
            why="it holds .npz files itself, but a set of clips is DIR/<category>/*.npz",
            fix=f"name {root.absolute().parent}, or put the files into a sub-folder named for the action",
        )
    if not found and (sets := sorted(p.parent.parent for p in root.glob("*/*/*.npz"))):
        raise ClipError(
            f"{root}: several sets of clips",
            why="only training takes more than one",
            fix=f"name one of them, such as {sets[0]}",
        )
    if not found:
        raise ClipError(
            f"{root}: no clips",
            why="a set of clips is DIR/<category>/*.npz, but no sub-folder here holds an .npz file",
            fix="put a few clips of each normal action into a sub-folder named for it",
        )
    return found


def iter_clips(files: list[Path]) -> Iterator[tuple[Path, Clip | ClipError]]:
    """Yield each file with its clip, or with the error that says why it is not one."""
    for path in files:
        try:
            yield path, load_clip(path)
        except ClipError as e:
            yield path, e
