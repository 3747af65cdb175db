"""Notices: said once in a while, always counted, in bounded memory."""

from __future__ import annotations

import io

import pytest

from edge.notices import Notices


class FakeClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(every: float = 10.0) -> tuple[Notices, io.StringIO, FakeClock]:
    out, clock = io.StringIO(), FakeClock()
    return Notices(out, every=every, clock=clock), out, clock


def test_a_line_without_a_key_is_always_said() -> None:
    notices, out, _ = made()
    notices.say("ready")
    notices.say("ready")
    assert out.getvalue() == "haad-edge: ready\n" * 2


def test_the_same_kind_is_said_once_in_a_while_and_the_rest_counted() -> None:
    notices, out, clock = made()
    for text in ("lost 1", "lost 2", "lost 3"):
        notices.say(text, "lost")
    clock.now += 9.99
    notices.say("lost 4", "lost")
    assert out.getvalue() == "haad-edge: lost 1\n"
    clock.now += 0.02
    notices.say("lost 5", "lost")
    assert out.getvalue().splitlines()[1:] == ["haad-edge: lost 5 (3 more like it since)"]
    clock.now += 20.01
    notices.say("lost 6", "lost")
    assert out.getvalue().splitlines()[2:] == ["haad-edge: lost 6"]  # counted from anew


def test_what_goes_on_is_said_less_and_less_often_and_what_comes_back_at_once() -> None:
    notices, out, clock = made()
    for _ in range(24 * 3600):
        notices.say("disk full", "disk")
        clock.now += 1
    said = out.getvalue().count("disk full")
    assert 140 < said < 170  # ten minutes apart in the end
    clock.now += 1300
    for _ in range(2):
        notices.say("disk full", "disk")
        clock.now += 10.01
    assert out.getvalue().count("disk full") == said + 2


def test_kinds_do_not_silence_each_other() -> None:
    notices, out, _ = made()
    for key in ("cam1", "cam2", "cam1"):
        notices.say(f"lost in {key}", key)
    assert out.getvalue() == "haad-edge: lost in cam1\nhaad-edge: lost in cam2\n"


def test_a_thousand_kinds_are_remembered_and_no_more() -> None:
    notices, out, _ = made()
    for i in range(5000):
        notices.say("x", str(i))
    before = len(out.getvalue())
    assert len(notices._said) <= 1000
    notices.say("x", "4999")
    assert len(out.getvalue()) == before
    notices.say("x", "0")  # long forgotten: said again
    assert len(out.getvalue()) > before


def test_lines_go_to_the_standard_error_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    Notices().say("hello")
    assert capsys.readouterr() == ("", "haad-edge: hello\n")


def test_what_cannot_be_said_stops_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    Notices(Full()).say("unheard")
    closed = io.StringIO()
    closed.close()
    Notices(closed).say("unheard")
    out = io.StringIO()
    Notices(out).say("name \udcff")
    assert out.getvalue() == "haad-edge: name \\udcff\n"


def test_whatever_is_in_a_text_is_one_printable_line() -> None:
    notices, out, _ = made()
    notices.say("a\0b\nc\x1b[31m → ä \udcff")
    assert out.getvalue() == "haad-edge: a\\x00b\\nc\\x1b[31m → ä \\udcff\n"
