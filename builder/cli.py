"""`haad-edge build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.console import need, say


def register(app: typer.Typer) -> None:
    """Add this house's commands."""

    @app.command(rich_help_panel="Make a model")
    def build(
        bundle: Annotated[Path, typer.Argument(help="the bundle to build in")],
        target: Annotated[str, typer.Option(help="what to build: onnx")] = "onnx",
    ) -> None:
        """Export the encoder and the match as one graph, checked against torch."""
        if target != "onnx":
            raise typer.BadParameter(f"unknown target '{target}'; this version builds 'onnx'", param_hint="--target")
        need("train", "torch", "onnx", "safetensors")
        from builder.export import build_onnx
        from edge.bundle import GRAPH, open_bundle

        built = build_onnx(open_bundle(bundle))
        found = built.manifest.parity
        say(f"{built.root / GRAPH}: opset {built.manifest.opset}, {(built.root / GRAPH).stat().st_size / 1e6:.2f} MB")
        say(
            f"parity with {found['against']} over {found['windows']} windows: "
            f"embedding {found['embedding']:.1e}, distance {found['distance']:.1e}"
        )
