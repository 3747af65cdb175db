"""Order, gaps and duplicates, against a model: whatever is lost on the way, each alert comes once and in order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.client.follow import HELD_MOST, Follower, Gap
from edge.events import Alert, Provenance

ALERT = Alert("i", "new", 0, "r", "cam1", 5, 1, 2, 1.5, 1.5, "walk", (), "", Provenance("", "", ""), "j")


def a(seq: int) -> Alert:
    return replace(ALERT, seq=seq, id=f"a{seq}")


def seqs(found: tuple[list[Alert], list[Gap]]) -> list[int]:
    assert found[1] == []
    return [x.seq for x in found[0]]


def test_a_gap_is_held_back_until_the_record_has_filled_it() -> None:
    f = Follower("j", on_record=True)
    assert f.on_status(5) == ([], []) and f.next_request() is None
    assert seqs(f.on_alert(a(5))) == [5]
    assert seqs(f.on_alert(a(8))) == [] and f.next_request() == 6
    assert seqs(f.on_alert(a(9))) == [] and f.next_request() == 6
    assert seqs(f.on_answer(6, [a(6), a(7), a(8)], 9, 0, 10, 0)) == [6, 7, 8, 9] and f.next_request() is None
    assert seqs(f.on_alert(a(8))) == []


def test_a_lost_last_alert_shows_in_the_status() -> None:
    f = Follower("j", on_record=True)
    f.on_status(5)
    assert f.on_status(6) == ([], []) and f.next_request() == 5
    assert seqs(f.on_answer(5, [a(5)], 6, 0, 6, 0)) == [5] and f.next_request() is None


def test_who_begins_in_the_past_asks_before_believing() -> None:
    f = Follower("j", 2, on_record=True)
    assert f.next_request() == 2
    assert seqs(f.on_alert(a(2))) == []
    assert seqs(f.on_answer(2, [a(2)], 3, 0, 3, 0)) == [2] and f.next_request() is None


def test_long_answers_are_asked_for_bit_by_bit() -> None:
    f = Follower("j", 0, on_record=True)
    assert seqs(f.on_answer(0, [a(0), a(1)], 2, 0, 5, 0)) == [0, 1] and f.next_request() == 2
    assert seqs(f.on_answer(2, [a(2), a(3), a(4)], 5, 0, 5, 0)) == [2, 3, 4] and f.next_request() is None


def test_what_was_trimmed_or_never_written_is_named() -> None:
    f = Follower("j", 0, on_record=True)
    alerts, gaps = f.on_answer(0, [a(3), a(5)], 7, 3, 7, 0)
    assert [x.seq for x in alerts] == [3, 5]
    assert [(g.first, g.after) for g in gaps] == [(0, 3), (4, 5), (6, 7)]
    assert "no longer" in gaps[0].why and "never written" in gaps[1].why and "3 alerts missed" in str(gaps[0])


def test_what_only_said_that_an_alert_stands_may_be_missing_from_the_record() -> None:
    f = Follower("j", 0, on_record=True)
    alerts, gaps = f.on_answer(0, [a(3), a(5), a(9)], 12, 2, 12, 0, 8)
    assert [x.seq for x in alerts] == [3, 5, 9] and f.next == 12
    assert [(g.first, g.after) for g in gaps] == [(0, 2), (8, 9), (10, 12)]
    assert "no longer" in gaps[0].why and "never written" in gaps[1].why


def test_without_a_record_the_missing_are_counted_at_once() -> None:
    f = Follower("r", on_record=False)
    assert seqs(f.on_alert(a(7))) == [7]
    alerts, gaps = f.on_alert(a(10))
    assert [x.seq for x in alerts] == [10] and [(g.first, g.after) for g in gaps] == [(8, 10)]
    assert [(g.first, g.after) for g in f.on_status(13)[1]] == [(11, 13)] and f.next_request() is None


def test_giving_up_delivers_what_is_held() -> None:
    f = Follower("j", 0, on_record=True)
    f.on_alert(a(2))
    f.on_status(5)
    alerts, gaps = f.give_up("silence")
    assert [x.seq for x in alerts] == [2] and [(g.first, g.after) for g in gaps] == [(0, 2), (3, 5)]
    assert seqs(f.on_alert(a(5))) == [5]


def test_a_journal_put_back_to_an_older_state_is_followed_from_the_engines_new_life() -> None:
    f = Follower("j", 100, on_record=True)
    f.on_alert(a(102))
    alerts, gaps = f.on_answer(100, [], 40, 0, 40, 38)
    assert alerts == [] and [(g.first, g.after) for g in gaps] == [(38, 100)]
    assert f.next_request() == 38, "what was said since is new, and has numbers that were heard before"
    assert seqs(f.on_answer(38, [a(38), a(39)], 40, 0, 40, 38)) == [38, 39]
    assert f.next_request() is None and seqs(f.on_alert(a(40))) == [40]
    assert not f._held, "what had such a number in the engine's former life is another alert"


def test_a_late_answer_to_an_older_question_changes_nothing_twice() -> None:
    f = Follower("j", 0, on_record=True)
    assert seqs(f.on_answer(0, [a(0), a(1)], 2, 0, 2, 0)) == [0, 1]
    assert seqs(f.on_answer(0, [a(0), a(1)], 2, 0, 2, 0)) == [] and f.next_request() is None
    assert seqs(f.on_alert(a(2))) == [2]
    assert seqs(f.on_answer(0, [a(n) for n in range(5)], 5, 0, 5, 0)) == [3, 4], "but what is new in it counts"
    assert f.on_answer(7, [a(7)], 8, 0, 8, 0) == ([], []) and f.next == 5, "nor one to a question further on"


def test_a_second_copy_of_an_alert_is_nothing_new_with_or_without_a_record() -> None:
    f = Follower("r", on_record=False)
    assert [seqs(f.on_alert(a(n))) for n in (7, 7, 8, 7)] == [[7], [], [8], []] and f.next == 9
    f = Follower("j", 0, on_record=True)
    f.on_alert(a(3))
    assert seqs(f.on_answer(0, [a(n) for n in range(5)], 5, 0, 5, 0)) == [0, 1, 2, 3, 4] and not f._held
    assert f.give_up("silence") == ([], []) and f.next == 5


def test_an_answer_in_any_order_is_delivered_in_order_and_says_nothing_of_what_lies_behind_it() -> None:
    f = Follower("j", 0, on_record=True)
    assert seqs(f.on_answer(0, [a(1), a(0), a(2)], 3, 0, 9, 0)) == [0, 1, 2]
    alerts, gaps = f.on_answer(3, [], 5, 7, 9, 0)
    assert alerts == [] and [(g.first, g.after) for g in gaps] == [(3, 5)] and f.next_request() == 5


def test_what_is_held_is_bounded_and_the_rest_comes_from_the_record() -> None:
    f = Follower("j", 0, on_record=True)
    for n in range(1, HELD_MOST + 50):
        f.on_alert(a(n))
    assert len(f._held) == HELD_MOST and f.next_request() == 0
    got = seqs(f.on_answer(0, [a(0)], 1, 0, HELD_MOST + 50, 0))
    assert got == list(range(HELD_MOST + 1)) and f.next_request() == HELD_MOST + 1
    f = Follower("j", 0, on_record=True)
    for n in range(1, HELD_MOST + 2):
        f.on_alert(a(n))
    assert len(seqs(f.on_answer(0, [a(0)], 1, 0, 1, 0))) == HELD_MOST + 1 and f.next_request() == HELD_MOST + 1


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.data())
def test_any_loss_any_delay_each_alert_comes_once_in_order(data: st.DataObject) -> None:
    """The engine publishes, messages are lost, statuses come, answers are late or cut, the journal trims."""
    start = data.draw(st.integers(0, 3), "cursor")
    f = Follower("j", start, on_record=True)
    published = first = start + data.draw(st.integers(0, 5), "already on record")
    first = data.draw(st.integers(0, published), "trimmed below")
    got: list[int] = []
    missed: list[int] = []

    def take(found: tuple[list[Alert], list[Gap]]) -> None:
        got.extend(x.seq for x in found[0])
        for g in found[1]:
            missed.extend(range(g.first, g.after))

    def answer(cut: int) -> None:
        since = f.next_request()
        if since is not None:
            rows = [n for n in range(max(since, first), published)][:cut]
            upto = rows[-1] + 1 if len(rows) == cut else published
            answers.append((since, [a(n) for n in rows], upto, min(first, published), published, 0))

    answers: list[tuple[int, list[Alert], int, int, int, int]] = []
    for _ in range(data.draw(st.integers(0, 25))):
        step = data.draw(st.sampled_from(["heard", "lost", "status", "ask", "answer", "restart", "trim"]))
        if step in ("heard", "lost"):
            published += 1
            if step == "heard":
                take(f.on_alert(a(published - 1)))
        elif step == "status":
            take(f.on_status(published))
        elif step == "ask":
            answer(data.draw(st.integers(1, 4)))
        elif step == "answer" and answers:
            take(f.on_answer(*answers.pop(0)))
        elif step == "restart":
            f.must_ask = True
        elif step == "trim":
            first = data.draw(st.integers(first, published))
        assert got == sorted(set(got))
    take(f.on_status(published))
    while f.next_request() is not None:
        answers.clear()
        answer(3)
        take(f.on_answer(*answers.pop()))
    assert got == sorted(set(got)) and not set(got) & set(missed)
    assert sorted([*got, *missed]) == list(range(start, published)), "each one came, or is known to be missed"
    assert all(n < first for n in missed), "only what the journal had let go was missed"
