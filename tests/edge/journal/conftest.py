"""A journal in a folder of the test's own, and what writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.journal.store import Journal

from .box import Box


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "j.db")
    yield journal
    journal.close()


@pytest.fixture
def box(journal: Journal) -> Iterator[Box]:
    box = Box(journal)
    yield box
    box.outbox.close()
