"""Explanations against an engine whose reasons are known."""

from __future__ import annotations

import numpy as np
import pytest

from edge.alerts.explain import explain
from edge.engine import Staging
from edge.skeleton import CORE15, Float


class Minds:
    """Distance = the share of what is visible of some joints during some rows; category 1 minds nothing."""

    name = "minds"

    def __init__(self, joints: dict[str, float], rows: slice) -> None:
        self.staging = Staging.empty(8, 48)
        self._weight = np.zeros((48, 15))
        for name, weight in joints.items():
            self._weight[rows, CORE15.index(name)] = weight

    def bind(self, support: Float, mask: Float) -> None: ...

    def run(self, n: int) -> tuple[Float, Float]:
        d = (self.staging.visible[:n] * self._weight).sum((1, 2)).astype(np.float32)
        return np.zeros((n, 4), np.float32), np.stack([d, np.zeros_like(d)], 1)


def test_joints_and_moment_are_those_the_graph_minds() -> None:
    engine = Minds({"r_wrist": 3, "l_knee": 1, "head": 2}, slice(30, 36))
    why = explain(engine, np.zeros((48, 15, 3), np.float32), np.ones((48, 15), np.float32), 0, 2.0)
    assert why.joints == ("r_wrist", "head", "l_knee")
    # Rows 30 to 36 of 48 in two seconds lie 0.75 to 0.5 s before the end.
    assert why.moment == pytest.approx((0.75, 0.5))


def test_what_minds_nothing_explains_nothing() -> None:
    engine = Minds({"r_wrist": 3}, slice(30, 36))
    why = explain(engine, np.zeros((48, 15, 3), np.float32), np.ones((48, 15), np.float32), 1, 2.0)
    assert why.joints == () and why.moment is None
