"""How a bridge ends: what closes it is heeded until its target is closed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from edge.bridge.cli import _run_bridge


class Subscriber:
    missed = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *args: object) -> None: ...


class SlowTarget:
    """Its closing takes so long that another signal comes meanwhile."""

    closed = False

    def stop(self) -> None: ...

    def close(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        self.closed = True


def test_a_second_signal_does_not_break_off_the_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(number: int, frame: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, terminated)
    monkeypatch.setattr("edge.client.AlertSubscriber", Subscriber)
    monkeypatch.setattr("edge.bridge.core.Bridge.run", lambda self: signal.raise_signal(signal.SIGTERM))
    target = SlowTarget()
    try:
        _run_bridge(target, "", tmp_path / "cursor", None, "", None, None, False)  # type: ignore[arg-type]
        assert target.closed and signal.getsignal(signal.SIGTERM) is terminated
    finally:
        signal.signal(signal.SIGTERM, before)
