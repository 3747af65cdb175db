"""Decides which clips of an evaluation support is drawn from, which are judged, and which categories are seen.

    clips        support from every other person, the rest judged; or from anywhere, all others judged
    utd_mhad     the same by person, which on UTD-MHAD is the customary 1 3 5 7 against 2 4 6 8
    humanact12   the first 80 % of each category's clips, the rest judged; the first nine categories are the seen ones

humanact12 is the protocol of arXiv 2508.17726; on the full release it gives, as there, 716 clips to train on and 243 to
judge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.clip import Clip, categories, load_clip, natural
from edge.errors import ClipError
from edge.skeleton import Float
from trainer.datasets import ClipSet, load_set, subject_split
from trainer.released import HUMANACT12, HUMANACT12_FPS, load_plain_pickle, read_humanact12, read_utd_mhad

PROTOCOLS = ("clips", "humanact12", "utd_mhad")
SEEN = 9
"""How many of HumanAct12's categories the paper trains on: the first ones in the data set's order."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Protocol:
    """Masks over the clips (N,). A clip drawn as support is not judged in the same draw, even if the masks overlap.

    `seen` marks the clips of the categories that a recipe may train on; None if categories are not distinguished.
    `about` describes the protocol in one sentence, `fix` says what to try, besides fewer shots, if a category has too
    few clips.
    """

    name: str
    about: str
    pool: Mask
    test: Mask
    seen: Mask | None = None
    fix: str = "add clips of it"

    @property
    def train(self) -> Mask:
        """The clips a recipe trains on under this protocol: what may be support, of the seen categories."""
        return self.pool if self.seen is None else self.pool & self.seen


def by_subject(subject: NDArray[np.str_]) -> Protocol:
    """Support from every other person, all clips of the rest judged. Raises ClipError for fewer than two people."""
    pool = subject_split(subject)
    about = "support clips from every other person; all clips of the other people judged"
    return Protocol("subject", about, pool, ~pool, fix="use --split random, or add clips of it by other people")


def by_people(subject: NDArray[np.str_], judged: list[str]) -> Protocol:
    """The named people's clips judged, support from all others.

    Raises ClipError if there is no clip of a person named, or nobody is left to be support.
    """
    known = sorted(set(subject.tolist()), key=natural)
    strangers = [name for name in judged if name not in known]
    if strangers or len(set(judged)) == len(known):
        raise ClipError(
            f"people {', '.join(judged)} cannot be the ones judged",
            why=f"the clips' subjects are {', '.join(known)}"
            + ("" if strangers else ", and at least one must be left for support"),
            fix="name some of these subjects with --people, not all",
        )
    test = np.isin(subject, judged)
    about = f"support clips from all people but {', '.join(judged)}; all clips of those judged"
    return Protocol("people", about, ~test, test, fix="name fewer people with --people, or add clips of it by others")


def at_random(clips: int) -> Protocol:
    """Support from anywhere, all other clips judged. This flatters: two clips of one person are near copies."""
    everything = np.ones(clips, bool)
    about = "support clips from anywhere, so the same person may be both support and judged, which flatters"
    return Protocol("random", about, everything, everything)


def first_part(category: NDArray[np.str_], seen: list[str]) -> Protocol:
    """Support from the first 80 % of each category's clips, in the order given and rounded down; the rest judged."""
    pool = np.zeros(len(category), bool)
    for name in set(category.tolist()):
        members = np.flatnonzero(category == name)
        pool[members[: len(members) * 4 // 5]] = True
    about = (
        "support from the first 80 % of each category's clips; the rest of all categories judged; "
        f"a recipe trained here sees {', '.join(seen)}"
    )
    return Protocol("humanact12", about, pool, ~pool, np.isin(category, seen))


def leave_out(protocol: Protocol, label: NDArray[np.int64], fold: int, folds: int = 4) -> Protocol:
    """The same with every `folds`-th category unseen, counted from `fold` (from 0); label (N,) numbers categories."""
    about = f"{protocol.about}; a recipe trained here does not see every {folds}th category (fold {fold})"
    return replace(protocol, about=about, seen=label % folds != fold)


def read_clips(data: Path, protocol: str) -> tuple[ClipSet, list[ClipError]]:
    """Read the clips to evaluate on; returns them, and the errors of those that could not be read.

    Raises ClipError if none can be read, or if any file of a released data set cannot, since those must be complete.
    """
    if protocol == "humanact12":
        return read_humanact12(data), []
    if protocol == "utd_mhad" and any(data.glob("*.mat")):
        return read_utd_mhad(data), []
    files = [p for paths in categories(data).values() for p in paths]
    found = load_set(data, strict=False)
    problems = []
    for path in sorted(set(files) - set(found.paths)):
        try:
            load_clip(path)
        except ClipError as e:
            problems.append(e)
    if not found.clips:
        raise ClipError(f"{data}: no clip can be read", why=str(problems[0]))
    return found, problems


def make_protocol(
    name: str, clips: ClipSet, *, split: str = "subject", people: list[str] | None = None, fold: int | None = None
) -> Protocol:
    """Make the protocol of that name for these clips; `split`, `people` and `fold` are used if it does not fix them."""
    if name == "humanact12":
        return first_part(np.array(clips.names)[clips.label], HUMANACT12[:SEEN])
    if people:
        found = by_people(clips.subjects, people)
    else:
        found = by_subject(clips.subjects) if split == "subject" else at_random(len(clips.clips))
    return found if fold is None else leave_out(found, clips.label, fold)


def paper_clips(data: Path, protocol: str, clips: ClipSet) -> list[Clip]:
    """The clips for recipe `paper`: HumanAct12 with its 24 joints, as published; else the 15 that all sets share."""
    if protocol != "humanact12":
        return clips.clips
    if data.is_file():
        with data.open("rb") as f:
            arrays = load_plain_pickle(f, str(data))["joints3D"]
    else:
        arrays = [np.load(p, allow_pickle=False) for p in clips.paths]
    joints: list[Float] = [np.nan_to_num(np.asarray(a, np.float32)) for a in arrays]
    # A Clip is only a container here: the recipe reads nothing but `joints`.
    return [Clip(j, np.ones(j.shape[:2], np.float32), HUMANACT12_FPS) for j in joints]


def trained_on(training: dict[str, Any], clips: ClipSet, protocol: Protocol, name: str) -> str:
    """What a manifest's `training` says about these clips, in a few sentences; empty if it names no such set.

    `name` is the set's name: its folder's, or that of the released set. The manifest names no categories except those
    left out, so the same action in a set of another name goes unnoticed.
    """
    for known in training.get("sets", []):
        same = known.get("sha256") == clips.digest
        if not same and known.get("name") != name:
            continue
        what = "on these very clips" if same else f"on a set of the same name, '{name}'"
        config = training.get("config")
        globs = config.get("exclude", []) if isinstance(config, dict) else []
        left = [c for c in clips.names if any(fnmatch(f"{known.get('name')}/{c}", str(g)) for g in globs)]
        without = f" It has not seen {', '.join(left)}, which its configuration left out." if left else ""
        held = [str(s) for s in known.get("held_out_subjects", [])]
        judged = set(clips.subjects[protocol.test].tolist())
        if judged <= set(held):
            who = (
                "knows these categories, but not the people judged. The figures do not say how good it is on new "
                "actions."
            )
        else:
            but = f" but {', '.join(held)} (--people {','.join(held)} judges those alone)" if held else ""
            who = f"knows these categories and these people{but}. The figures do not say how good it is on new ones."
        return f"the model was trained {what}: it {who}{without}"
    return ""
