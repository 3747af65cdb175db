"""What doctor finds, on this machine and on broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import doctor
from edge.errors import BundleError


def by_name() -> dict[str, doctor.Finding]:
    return {f.name: f for f in doctor.examine()}


def test_the_default_engine_works_here() -> None:
    found = by_name()
    assert found["engine onnx"].verdict == "ok" and "base-" in found["engine onnx"].detail
    assert found["haad-edge"].verdict == "ok"


def test_every_line_that_is_not_ok_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "version_of", lambda p: None)

    def broken() -> object:
        raise BundleError("no bundle", why="a test", fix="reinstall")

    monkeypatch.setattr(doctor, "open_bundle", broken)
    found = by_name()
    assert found["engine onnx"] == doctor.Finding("engine onnx", "broken", "no bundle: a test", "reinstall")
    assert found["training"].verdict == "absent" and "haad-edge[train]" in found["training"].fix
    assert found["cache"].verdict == "broken"
    assert all(f.fix for f in found.values() if f.verdict != "ok")


def test_the_cache_looked_at_is_the_one_that_run_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAAD_CACHE", str(tmp_path / "mine"))
    assert by_name()["cache"] == doctor.Finding("cache", "ok", str(tmp_path / "mine"))


def test_the_journal_is_where_run_would_write_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HAAD_JOURNAL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "haad-edge" / "journal.db"
    assert doctor._journal() == doctor.Finding("journal", "ok", str(path)) and not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(bytes(1 << 20))
    assert doctor._journal().detail == f"{path}, 1.0 MiB"
    monkeypatch.setenv("HAAD_JOURNAL", str(path / "below" / "j.db"))
    assert doctor._journal().verdict == "broken"
    monkeypatch.setenv("HAAD_JOURNAL", "off")
    assert doctor._journal().verdict == "absent"
