"""The map of the code names everything there is, and nothing that is not."""

from __future__ import annotations

import re

import pytest

from .pages import ROOT

PAGE = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([\w./]+(?:\.py|/))`", PAGE))


def places(name: str) -> list[str]:
    """Where something of that name is: the whole path, or any place inside the houses."""
    inside = [p for house in ("edge", "builder", "trainer") for p in (ROOT / house).rglob(name.rstrip("/"))]
    return [str(p) for p in [ROOT / name, *inside] if p.exists()]


def test_everything_named_is_there() -> None:
    assert len(NAMED) > 60
    assert [name for name in sorted(NAMED) if not places(name)] == []


@pytest.mark.parametrize("house", ["edge", "builder", "trainer"])
def test_every_room_and_every_module_beside_them_is_named(house: str) -> None:
    names = {n.removeprefix(f"{house}/") for n in NAMED}
    rooms = {f"{p.parent.name}/" for p in (ROOT / house).glob("*/__init__.py")}
    modules = {p.name for p in (ROOT / house).glob("*.py") if not p.name.startswith("__")}
    assert (rooms | modules) - names == set()
