"""`haad-edge build`, run as a command."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from builder.compile import PlanOptions
from builder.profile import parse_profile
from edge.bundle import GRAPH, Bundle, open_bundle
from edge.cli import main, make_app
from edge.engine.record import Profile, plan_words


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


@pytest.mark.parametrize(
    ("profile", "more"),
    [
        (parse_profile(), {}),
        (parse_profile("1:64:256", "1:4:32x1:8:64"), {"float32": ["/a/", "/b.0/c"], "workspace": 2048}),
        (parse_profile("1:16:64", "1:8:64x1:64:512"), {"version_compatible": True, "precision": "fp32"}),
    ],
)
def test_what_was_asked_for_is_said_in_the_options_that_ask_for_it(
    monkeypatch: pytest.MonkeyPatch, profile: Profile, more: dict[str, Any]
) -> None:
    options, asked = (
        PlanOptions(**{"precision": "fp16", "profile": profile, "float32": [], **more}),
        list[PlanOptions](),
    )
    monkeypatch.setattr("builder.compile.build_tensorrt", lambda bundle, options, say: asked.append(options) or 1 / 0)
    CliRunner().invoke(make_app(), plan_words(open_bundle(), options.precision, options.cli_options()))
    assert asked == [options] and (more or not options.cli_options())


@pytest.mark.parametrize(
    "option",
    ["--batch=1:4:8", "--support=1x1", "--workspace=7", "--timing-cache=/tmp/x", "--version-compatible"],
)
def test_options_of_a_plan_are_refused_for_the_graph(bundle: Bundle, option: str) -> None:
    result = CliRunner().invoke(make_app(), ["build", str(bundle.root), option])
    assert result.exit_code == 2 and "--target tensorrt" in result.output and option.partition("=")[0] in result.output
    assert not (bundle.root / GRAPH).exists()


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
