"""What the engine does not take, and whose result is whose then."""

from __future__ import annotations

import pytest

from edge.errors import EngineError
from edge.events import Scores

from .harness import HeightEngine, LateEngine, bench, stand


class Choosy(LateEngine):
    """Refuses one batch while another is under way, and stays as it was."""

    refused = 0

    def submit(self, n: int, *, embeddings: bool = False) -> None:
        if self._under and not self.refused:
            self.refused = n
            raise EngineError("no room just now", why="a test said so")
        super().submit(n, embeddings=embeddings)


def test_a_batch_that_is_refused_is_counted_and_the_one_before_it_keeps_its_people() -> None:
    engine = Choosy(HeightEngine(4), chance=0.0)
    b = bench(engine)
    heights = {i: 0.1 * i for i in range(8)}
    b.play([m for ms in zip(*(stand(f"cam{i}", 3, {i: h}) for i, h in heights.items()), strict=True) for m in ms])
    assert engine.refused and b.runtime.counts.skipped["engine_failed"] == engine.refused
    scores = [e for e in b.sink.events if isinstance(e, Scores)]
    scored = [(t, d) for e in scores for t, d in zip(e.track, e.distance, strict=True)]
    assert len(scored) == b.runtime.counts.windows > 20
    for track, distance in scored:
        assert distance == pytest.approx(heights[track], abs=1e-5)
