"""Explains a window's score by occlusion: finds the joints and the moment that made it abnormal.

The window is run again with one joint hidden at a time, and with one stretch of time hidden at a time. Whatever brings
it nearest to the category when hidden is what the model found abnormal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.engine import Engine, run_all
from edge.skeleton import CORE15, Float, J

STRETCHES = 8
"""Parts that a window is cut into to find the moment: a quarter of a second each for a window of two seconds."""
ROWS = J + STRETCHES + 1
"""Windows that are run for one explanation."""
MOST = 3
"""Joints that are named at most."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The joints and the moment whose hiding brings a window nearest to normal.

    `joints` come strongest first. `moment` is a stretch (from, to) in seconds before the window's end, or None when no
    stretch explains it. `embedding` (D,) is that of the unaltered window.
    """

    joints: tuple[str, ...]
    moment: tuple[float, float] | None
    embedding: Float


def explain(engine: Engine, joints: Float, visible: Float, category: int, seconds: float) -> Explanation:
    """Explain why the window joints (T, 15, 3), visible (T, 15) is far from a category. Raises EngineError."""
    frames = len(joints)
    edges = np.linspace(0, frames, STRETCHES + 1).round().astype(int)
    hidden = np.repeat(visible[None], ROWS, 0)
    hidden[np.arange(J), :, np.arange(J)] = 0
    for k in range(STRETCHES):
        hidden[J + k, edges[k] : edges[k + 1]] = 0
    embedding, distances = run_all(engine, np.repeat(joints[None], len(hidden), 0), hidden)
    distance = distances[:, category]
    gain = distance[-1] - distance[:-1]
    named = tuple(CORE15[j] for j in np.argsort(-gain[:J], kind="stable")[:MOST] if gain[j] > 0)
    k = int(gain[J:].argmax())
    if gain[J + k] <= 0:
        return Explanation(named, None, embedding[-1])
    step = seconds / frames
    moment = (round((frames - edges[k]) * step, 3), round((frames - edges[k + 1]) * step, 3))
    return Explanation(named, moment, embedding[-1])
