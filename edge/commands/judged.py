"""Scores the windows of clips against a support folder, and explains the highest score: for `haad-edge view`.

The scores are relative to the categories' limits only. A running engine also follows each person's usual level, which
takes longer than most clips last.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.alerts.explain import explain
from edge.bundle import Bundle
from edge.clip import Clip, load_clip
from edge.commands.figures import figure
from edge.commands.view import LONGEST_S
from edge.engine import Engine, open_engine, run_all
from edge.errors import ClipError
from edge.grid import SECOND
from edge.score import NormalByStream, Scored, Scorer, TransitionTimer
from edge.settings import Settings
from edge.skeleton import CORE15, Float
from edge.support.cache import FeatureCache
from edge.support.enrol import SupportSet, cut, load_support
from edge.support.transitions import TransitionPlan


@dataclass(slots=True)
class Scores:
    """The scores of a clip's windows by their ends (seconds), None where too little is seen; `over`: one is too high.

    For the window with the highest score: `near` is the normal clip that came nearest, as an index into
    `ClipJudge.near`. If that score is too high: the `joints` (core15 numbers) and the `moment` (from, to in seconds)
    that differ most.
    """

    end: list[float] = field(default_factory=list)
    score: list[float | None] = field(default_factory=list)
    over: bool = False
    joints: list[int] = field(default_factory=list)
    moment: list[float] | None = None
    near: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether a window's score is above 1, and if so the mean direction (D,) of the embeddings of such windows."""

    over: bool = False
    vector: Float | None = None


class ClipJudge:
    """Judges clips by a support folder. Raises HaadError if the folder or the engine cannot be used."""

    def __init__(self, folder: Path, bundle: Bundle, settings: Settings) -> None:
        self._folder, self._settings, self._manifest = folder, settings, bundle.manifest
        self._engine: Engine = open_engine(bundle)
        plan = TransitionPlan(settings.normal, settings.max_transitions)
        self.support: SupportSet = load_support(
            folder, bundle, self._engine, FeatureCache(settings.cache), transitions=plan
        )
        self._engine.bind(self.support.features, self.support.mask)
        self._normal_on = NormalByStream(settings.normal, self.support.names, self.support.transitions)
        self.near: list[dict[str, Any]] = []
        self._known: dict[str, int | None] = {}

    def __call__(self, clip: Clip, card: dict[str, Any], stream: str = "") -> Judged:
        """Add scores to a clip's card (see `figure`), and lines about them to its notes.

        `stream` is where the clip was seen, if that is known: it decides which categories are normal.
        """
        scores = Scores()
        card["verdict"] = len(card["notes"])
        lines, vector = self._judge(clip, card["start"], stream, scores)
        card["notes"] += lines
        card["scores"] = asdict(scores)
        return Judged(scores.over, vector)

    def _judge(self, clip: Clip, offset: float, stream: str, out: Scores) -> tuple[list[str], Float | None]:
        """Fill in a clip's scores; returns the lines that say what was found, in which time begins at `offset`, and the
        direction of `Judged`.
        """
        m, s = self._manifest, self._settings
        starts, joints, visible = windows(clip, m.frames, m.seconds, s.stride)
        if not len(starts):
            return [f"not judged: shorter than a window of {m.seconds:g} s"], None
        embedding, distance = run_all(self._engine, joints, visible)
        ends = starts + (m.frames - 1) * m.seconds / m.frames
        scored = self._score(ends, distance, stream)
        clear = (visible.mean((1, 2)) >= s.min_visible) & np.isfinite(distance).all(1)
        out.end = [round(float(t), 3) for t in ends]
        out.score = [round(float(v), 3) if c else None for v, c in zip(scored.score, clear, strict=True)]
        if not clear.any():
            return [f"not judged: fewer than {s.min_visible:.0%} of the joints are seen"], None
        k = int(np.where(clear, scored.score, -1).argmax())
        category = int(scored.category[k])
        nearest = f"{self.support.names[category]}/{self.support.nearest_clip(embedding[k], category)}"
        out.near, out.over = self._beside(nearest), bool(scored.score[k] > 1)
        lines = [f"highest score {scored.score[k]:.2f}, nearest to {nearest}"]
        if out.over and (why := self._why(out, joints[k], visible[k], category, float(starts[k]), offset)):
            lines.append(f"differs most: {why}")
        if not out.over:
            return lines, None
        mean = embedding[clear & (scored.score > 1)].mean(0)
        return lines, mean / max(float(np.linalg.norm(mean)), 1e-9)

    def _score(self, ends: NDArray[np.float64], distance: Float, stream: str) -> Scored:
        when = np.round(ends * SECOND).astype(np.int64)
        passing = partial(TransitionTimer(1), np.zeros(len(ends), np.intp), when)
        return Scorer(self.support.limit, self.support.transitions)(
            distance, self._normal_on.rows([stream] * len(ends)), passing
        )

    def _why(self, out: Scores, joints: Float, visible: Float, category: int, start: float, offset: float) -> str:
        """Fill in the joints and the moment in which the window differs; returns the same as text."""
        why = explain(self._engine, joints, visible, category, self._manifest.seconds)
        out.joints = [CORE15.index(j) for j in why.joints]
        words = list(why.joints)
        if why.moment:
            out.moment = [round(start + self._manifest.seconds - ago, 3) for ago in why.moment]
            begin, end = (offset + t for t in out.moment)
            words.append(f"from {begin:.1f} to {end:.1f} s")
        return ", ".join(words)

    def _beside(self, name: str) -> int | None:
        """The index of a support clip in `near`, which it is added to; None if it can no longer be read."""
        if name not in self._known:
            try:
                self.near.append(figure(load_clip(self._folder / name).part(0, LONGEST_S), name))
                self._known[name] = len(self.near) - 1
            except ClipError:
                self._known[name] = None
        return self._known[name]


def windows(clip: Clip, frames: int, seconds: float, stride: float) -> tuple[NDArray[np.float64], Float, Float]:
    """Cut a clip into windows: starts (N,) in seconds, joints (N, T, 15, 3), visible (N, T, 15).

    Only complete windows of the clip as it is: unlike in a support folder, a short clip is not looped.
    """
    step = seconds / frames
    starts = np.arange(0, clip.seconds - (frames - 1) * step + 1e-6, max(stride, step))
    return starts, *cut(clip.at, starts, frames, step)
