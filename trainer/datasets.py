"""Loads folders of clips as training sets, and samples balanced batches from them.

DIR/<category>/*.npz            one set
DIR/<set>/<category>/*.npz      several sets: a batch is drawn mostly from one, so that negatives share the sensor
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip, categories, iter_clips, natural
from edge.errors import ClipError
from edge.skeleton import Float


@dataclass(frozen=True, slots=True)
class ClipSet:
    """One data set in memory. `label[i]` numbers the category of `clips[i]` within this set."""

    name: str
    clips: list[Clip]
    paths: list[Path]
    label: NDArray[np.int64]
    names: list[str]
    digest: str

    @property
    def subjects(self) -> NDArray[np.str_]:
        return np.array([c.subject for c in self.clips])

    def subset(self, keep: NDArray[np.bool_]) -> ClipSet:
        index = np.flatnonzero(keep)
        return ClipSet(
            self.name,
            [self.clips[i] for i in index],
            [self.paths[i] for i in index],
            self.label[index],
            self.names,
            self.digest,
        )


def find_sets(root: Path | str) -> list[Path]:
    """Find the sets under `root`: itself if its sub-folders hold clips, else those of its sub-folders that are sets.

    Raises ClipError if there is no such folder, or there are no clips in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise ClipError(
            f"{root}: no such folder", fix="name a folder DIR/<category>/*.npz or DIR/<set>/<category>/*.npz"
        )
    if any(root.glob("*/*.npz")):
        return [root]
    sets = sorted({p.parent.parent for p in root.glob("*/*/*.npz")})
    if not sets:
        raise ClipError(f"{root}: no clips", why="it has neither */*.npz nor */*/*.npz")
    return sets


def load_set(
    root: Path, *, exclude: Sequence[str] = (), merge: Mapping[str, str] | None = None, strict: bool = True
) -> ClipSet:
    """Read a set. `exclude` lists globs on `<set>/<category>`; `merge` maps such globs to a coarser category name.

    Raises one ClipError if any clips cannot be read; with `strict=False` they are left out instead.
    """
    merge, called = merge or {}, root.resolve().name  # resolved, since `.` has no name
    clips: list[Clip] = []
    paths: list[Path] = []
    label: list[int] = []
    names: list[str] = []
    broken: dict[Path, ClipError] = {}
    sha = hashlib.sha256()
    for folder, files in categories(root).items():
        key = f"{called}/{folder}"
        if any(fnmatch(key, g) for g in exclude):
            continue
        name = next((coarse for g, coarse in merge.items() if fnmatch(key, g)), folder)
        if name not in names:
            names.append(name)
        for path, clip in iter_clips(files):
            if isinstance(clip, ClipError):
                broken[path] = clip
                continue
            sha.update(f"{name}/{path.name} {clip.fps} {clip.subject}\n".encode())
            sha.update(clip.joints.tobytes() + clip.visible.tobytes())
            clips.append(clip)
            paths.append(path)
            label.append(names.index(name))
    if broken and strict:
        first, *others = broken.values()
        if not others:
            raise first
        names = [str(p.relative_to(root)) for p in broken]
        raise ClipError(
            f"{root}: {len(broken)} of {len(broken) + len(clips)} clips cannot be used",
            why=f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}; the first: {first.why}",
            fix=f"mend or remove them; {first.fix}",
        )
    return ClipSet(called, clips, paths, np.array(label, np.int64), names, sha.hexdigest())


def unmatched_globs(data: Path, *options: Iterable[str]) -> Iterator[str]:
    """Yield a message for each glob on `<set>/<category>` that matches nothing under `data`."""
    keys = [f"{root.resolve().name}/{folder}" for root in find_sets(data) for folder in categories(root)]
    for glob in (g for globs in options for g in globs):
        if not any(fnmatch(key, glob) for key in keys):
            yield f"'{glob}' matches nothing; it must match names such as {', '.join(keys[:3])}"


def subject_split(subjects: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Mark the clips of every other subject in natural order: those that describe normal (and train).

    On UTD-MHAD this is the customary split, subjects 1 3 5 7 against 2 4 6 8. Raises ClipError if there are fewer than
    two subjects.
    """
    order = sorted(set(subjects.tolist()), key=natural)
    if len(order) < 2:
        raise ClipError(
            f"a split by subject needs two subjects or more, found {order or 'none'}",
            why="the clips' 'subject' field tells people apart",
            fix="use --split random",
        )
    return np.isin(subjects, order[::2])


def held_out(subjects: NDArray[np.str_], every: int) -> NDArray[np.bool_]:
    """Mark the clips of every `every`-th subject in natural order, beginning with the `every`-th; none for 0."""
    order = sorted(set(subjects.tolist()), key=natural)
    return np.isin(subjects, order[every - 1 :: every] if every else [])


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of training samples, or the n rows of it that were asked for.

    joints (n, T, 15, 3) and visible (n, T, 15) hold those rows only; label (N,), unique across sets, and group (N,),
    the number of the set, describe the whole batch.
    """

    joints: Float
    visible: Float
    label: NDArray[np.int64]
    group: NDArray[np.int64]


class Sampler:
    """Draws endless batches of `size` samples: `share` of each from one set, the rest from another.

    A batch has `per_category` samples of each of its categories. A share `whole` are whole clips (cropped, time-warped,
    resampled); the others are windows cut at any phase of the looped clip, as the device cuts them. A batch depends
    only on (seed, step), and a sample only on (seed, step, row), so a process that needs only some rows makes only
    those.
    """

    def __init__(
        self,
        sets: Sequence[ClipSet],
        *,
        frames: int,
        step: float,
        size: int,
        per_category: int = 6,
        share: float = 0.75,
        whole: float = 0.7,
        seed: int = 0,
    ) -> None:
        self.sets, self.frames, self.step, self.size = list(sets), frames, step, size
        self.per_category, self.share, self.whole, self.seed = per_category, share, whole, seed
        self.offset = np.cumsum([0] + [len(s.names) for s in self.sets])
        self.members = [[np.flatnonzero(s.label == c) for c in range(len(s.names))] for s in self.sets]
        weight = np.sqrt([len(s.clips) for s in self.sets])
        self.weight = weight / weight.sum()

    def batches(self, first_step: int = 0, rows: slice = slice(None)) -> Iterator[Batch]:
        step = first_step
        while True:
            yield self.draw(np.random.default_rng((self.seed, step)), rows)
            step += 1

    def plan(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Draw the (set, category) of each row."""
        plan: list[tuple[int, int]] = []
        main = int(rng.choice(len(self.sets), p=self.weight))
        wanted = [(main, round(self.size * (self.share if len(self.sets) > 1 else 1)))]
        if len(self.sets) > 1:
            rest = self.weight.copy()
            rest[main] = 0
            wanted.append((int(rng.choice(len(self.sets), p=rest / rest.sum())), self.size - wanted[0][1]))
        for s, count in wanted:
            filled = [c for c, m in enumerate(self.members[s]) if len(m)]
            chosen = rng.permutation(filled)[: max(2, count // self.per_category)]
            plan += [(s, int(chosen[i % len(chosen)])) for i in range(count)]
        return plan

    def draw(self, rng: np.random.Generator, rows: slice = slice(None)) -> Batch:
        """Draw one batch, of which only `rows` are made."""
        plan, key = self.plan(rng), int(rng.integers(2**63))
        wanted = range(len(plan))[rows]
        joints = np.empty((len(wanted), self.frames, 15, 3), np.float32)
        visible = np.empty((len(wanted), self.frames, 15), np.float32)
        for n, i in enumerate(wanted):
            s, c = plan[i]
            own = np.random.Generator(np.random.Philox(key=(key, i)))  # a third of default_rng's cost
            joints[n], visible[n] = self.sample(self.sets[s].clips[own.choice(self.members[s][c])], own)
        label = np.array([self.offset[s] + c for s, c in plan], np.int64)
        return Batch(joints, visible, label, np.array([s for s, _ in plan], np.int64))

    def sample(self, clip: Clip, rng: np.random.Generator) -> tuple[Float, Float]:
        """Make one training view of a clip: cropped or cut, warped in time, sometimes as a slow camera sees it."""
        if rng.random() < 0.3 and clip.fps > 12:
            fps = rng.uniform(10, clip.fps)
            j, v = clip.at(np.arange(0, clip.seconds + 1e-9, 1 / fps))
            if len(j) >= 4:
                clip = Clip(j, v, fps)
        phase = np.linspace(0, 1, self.frames)
        # A smooth monotone warp: the identity plus one sine; |a|·2π·f < 1 keeps it increasing.
        f = rng.integers(1, 3)
        warp = phase + rng.uniform(-0.6, 0.6) / (2 * np.pi * f) * np.sin(2 * np.pi * f * phase) * (rng.random() < 0.5)
        if rng.random() < self.whole:
            start, stop = rng.uniform(0, 0.12), 1 - rng.uniform(0, 0.12)
            return clip.at((start + (stop - start) * warp) * clip.seconds)
        span = (self.frames - 1) * self.step * np.exp(rng.uniform(-0.2, 0.2))
        return clip.looped(rng.uniform(0, clip.seconds) + span * warp)
