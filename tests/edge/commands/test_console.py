import signal
from collections.abc import Iterator

import pytest

from edge.commands.console import fail, signals
from edge.errors import EngineError

KINDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in KINDS}
    yield
    for n, handler in before.items():
        signal.signal(n, handler)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_calls_what_it_was_told_to_and_is_as_before_afterwards(kind: signal.Signals) -> None:
    came: list[str] = []
    signal.signal(kind, lambda *_: came.append("before"))
    with signals() as call_on_signal:
        signal.raise_signal(kind)
        call_on_signal(lambda: came.append("stop"))
        signal.raise_signal(kind)
        signal.raise_signal(kind)
    signal.raise_signal(kind)
    assert came == ["before", "stop", "stop", "before"]


def test_an_error_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(EngineError("built for \x1b[2JX", why="naïve “names” 東京 \ud800 [bold]", fix="a\r"))
    assert capsys.readouterr().err.splitlines() == [
        "error: built for \\x1b[2JX", "  why: naïve “names” 東京 \\ud800 [bold]", "  next: a\\r"
    ]  # fmt: skip


def test_a_program_under_nohup_goes_on_when_the_terminal_is_closed() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals() as call_on_signal:
        call_on_signal(lambda: pytest.fail("stopped"))
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
