"""`haad-edge build`, `inspect` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.console import need, say

MODEL = "Look into things"


def register(app: typer.Typer) -> None:
    """Add this house's commands."""

    @app.command(rich_help_panel="Make a model")
    def build(
        bundle: Annotated[Path, typer.Argument(help="the bundle to build in")],
        target: Annotated[str, typer.Option(help="what to build: onnx")] = "onnx",
        precision: Annotated[str, typer.Option(help="fp32, or fp16: a float16 graph beside the float32 one")] = "fp32",
        float32: Annotated[
            list[str] | None, typer.Option(help="fp16: a part to keep in float32, by how its operations' names begin")
        ] = None,
    ) -> None:
        """Export the encoder and the match as one graph, checked against torch; with fp16 its float16 form as well."""
        if target != "onnx":
            raise typer.BadParameter(f"unknown target '{target}'; this version builds 'onnx'", param_hint="--target")
        if precision not in ("fp32", "fp16"):
            raise typer.BadParameter(f"'{precision}' is neither fp32 nor fp16", param_hint="--precision")
        if float32 and precision == "fp32":
            raise typer.BadParameter("everything is float32 without --precision fp16", param_hint="--float32")
        need("train", "torch", "onnx", "safetensors")
        from builder.export import build_onnx
        from edge.bundle import GRAPH, open_bundle

        if precision == "fp16":
            from builder.engines import build_half
            from builder.record import FOLDER

            built, record = build_half(open_bundle(bundle), float32 or [])
        else:
            built = build_onnx(open_bundle(bundle))
        found = built.manifest.parity
        say(f"{built.root / GRAPH}: opset {built.manifest.opset}, {(built.root / GRAPH).stat().st_size / 1e6:.2f} MB")
        say(
            f"parity with {found['against']} over {found['windows']} windows: "
            f"embedding {found['embedding']:.1e}, distance {found['distance']:.1e}"
        )
        if precision == "fp16":
            path, gate = built.root / FOLDER / record.target / record.file, record.gate
            say(
                f"{path}: {path.stat().st_size / 1e6:.2f} MB, typed; "
                f"by their lists for TensorRT {', '.join(record.reads)}"
            )
            say(
                f"gate over {gate.windows} windows: cosine ≥ {gate.cosine:.6f}, "
                f"distance within {gate.distance:.1e}, few-shot AUROC within {gate.auroc:.1e}"
            )

    @app.command(rich_help_panel=MODEL)
    def inspect(
        path: Annotated[Path, typer.Argument(help="a bundle, or one of its engines/<target> folders")],
    ) -> None:
        """What a bundle or an engine is, what can run it, and why not here."""
        from builder.inspect import inspect as look
        from edge.doctor import show

        show(look(path))

    @app.command(rich_help_panel=MODEL)
    def verify(bundle: Annotated[Path, typer.Argument(help="the bundle to check")]) -> None:
        """Whether a bundle is whole and computes here what it should; exit code 1 if not."""
        from builder.verify import verify as check
        from edge.bundle import open_bundle
        from edge.doctor import show

        if show(check(open_bundle(bundle))):
            raise typer.Exit(1)
