"""`haad-edge build`, run as a command."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from edge.bundle import GRAPH, Bundle, open_bundle
from edge.cli import main, make_app


def test_build_says_what_it_wrote_and_can_be_run_again(bundle: Bundle) -> None:
    first = None
    for _ in range(2):
        result = CliRunner().invoke(make_app(), ["build", str(bundle.root), "--target", "onnx"])
        assert result.exit_code == 0, result.output
        printed = "".join(result.output.split())
        assert f"{bundle.root / GRAPH}:opset17," in printed and "paritywithtorch" in printed
        digest = open_bundle(bundle.root).manifest.files[GRAPH]
        assert first in (None, digest)  # the same weights give the same file
        first = digest


def test_damaged_weights_are_said_to_be_and_nothing_is_built(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle.root / "encoder.safetensors").write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["haad-edge", "build", str(bundle.root)])
    with pytest.raises(SystemExit) as e:
        main()
    printed = capsys.readouterr().err
    assert e.value.code == 2 and "sha256" in printed and "next:" in printed
    assert not (bundle.root / GRAPH).exists()
