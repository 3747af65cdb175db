"""A station for every test that listens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .station import Station


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    station.close()
