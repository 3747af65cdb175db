"""kill -9 of engine, subscriber, bridges and broker while alerts flow; the long run is `python -m benchmarks.crash`."""

from __future__ import annotations

import pytest

from benchmarks.crash import compare, crash
from benchmarks.crash_rig import MOSQUITTO


@pytest.mark.timeout(280)
def test_no_alert_is_lost_and_none_comes_twice(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("c")  # a short name: ipc addresses have 107 characters
    figures = crash(root, kills=10, seed=7, pause=0.5, say=lambda _: None)
    assert figures["journal_gapless"] and figures["alert_messages"] > 50
    assert figures["kills"]["engine"] >= 1 and sum(figures["kills"].values()) == 10
    for wrong in ("begun_more_than_once", "never_begun", "ended_twice_in_a_row", "left_standing"):
        assert figures[wrong] == 0, wrong
    assert ("bridge mqtt" in figures["sinks"]) == (MOSQUITTO is not None) and len(figures["sinks"]) >= 4
    for name, row in figures["sinks"].items():
        wrong = {k: v for k, v in row.items() if v and k != "repeated_before_deduplication"}
        assert not wrong, (name, wrong)


def test_the_comparison_sees_what_it_is_there_for() -> None:
    truth = [(0, "a", "new"), (1, "a", "end"), (2, "b", "new")]
    none = dict.fromkeys(compare(truth, truth), 0)
    assert compare(truth, truth) == none
    assert compare(truth, truth[:1] + truth[2:]) == {**none, "lost": 1}
    assert compare(truth, [*truth, truth[0]]) == {**none, "repeated_before_deduplication": 1}
    assert compare(truth, [truth[1], truth[0], truth[2]]) == {**none, "out_of_order": 1}
    stranger = (2, "c", "new")
    found = compare(truth, [*truth, stranger])
    assert found == {**none, "not_in_journal": 1, "duplicates_after_deduplication": 1}
