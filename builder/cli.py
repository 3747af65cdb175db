"""`haad-edge build`, `inspect` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.profile import BATCH, SUPPORT, WORKSPACE
from edge.commands.console import need, say
from edge.engine.loading import check_loading
from edge.errors import command

MODEL, PLAN = "Look into things", "For a plan"


def plan(
    root: Path,
    precision: str,
    float32: list[str],
    batch: str,
    support: str,
    workspace: int,
    timing_cache: Path | None,
    version_compatible: bool,
) -> None:
    """Build a TensorRT plan, and print what was built and how it measured."""
    check_loading()
    from builder.compile import PlanOptions, build_tensorrt
    from builder.profile import parse_profile
    from edge.bundle import open_bundle
    from edge.engine.record import FOLDER, actual_precision

    options = PlanOptions(
        precision, parse_profile(batch, support), float32, workspace, timing_cache, version_compatible
    )
    built, record = build_tensorrt(open_bundle(root), options, say)
    path, gate = built.root / FOLDER / record.target / record.file, record.gate
    how = f", {record.together} windows at once" if record.together > 1 else ""
    say(f"{path}: {path.stat().st_size / 1e6:.2f} MB, TensorRT {record.tensorrt}, {record.gpu}, {precision}{how}")
    say(
        f"gate over {gate.windows} windows: cosine ≥ {gate.cosine:.6f}, "
        f"distance within {gate.distance:.1e}, few-shot AUROC within {gate.auroc:.1e}"
    )
    if actual_precision(record) != record.precision:
        say(f"the plan computes in float32 throughout: TensorRT {record.tensorrt} built no other that passes")
    say("ms by batch size, p50 and p99: " + ", ".join(f"{n}: {a:g} {b:g}" for n, (a, b) in record.latency_ms.items()))
    say(command("run", "--bundle", built.root))


def register(app: typer.Typer) -> None:
    """Add the builder's commands."""

    @app.command(rich_help_panel="Make a model")
    def build(
        context: typer.Context,
        bundle: Annotated[Path, typer.Argument(help="the bundle to add the build to")],
        target: Annotated[str, typer.Option(help="onnx: the graph; tensorrt: a plan for this GPU")] = "onnx",
        precision: Annotated[
            str | None, typer.Option(help="fp32 or fp16; none: fp32 for onnx, fp16 for tensorrt")
        ] = None,
        float32: Annotated[
            list[str] | None, typer.Option(help="fp16: prefix of operation names to keep in float32")
        ] = None,
        batch: Annotated[
            str, typer.Option(help="tensorrt: windows in a batch, min:usual:max", rich_help_panel=PLAN)
        ] = BATCH,
        support: Annotated[
            str, typer.Option(help="tensorrt: categories x windows in each, min:usual:max", rich_help_panel=PLAN)
        ] = SUPPORT,
        workspace: Annotated[
            int, typer.Option(min=1, max=1 << 20, help="tensorrt: MiB the builder may work with", rich_help_panel=PLAN)
        ] = WORKSPACE,
        timing_cache: Annotated[
            Path | None, typer.Option(help="tensorrt: file of measured timings, read and written", rich_help_panel=PLAN)
        ] = None,
        version_compatible: Annotated[
            bool,
            typer.Option(help="tensorrt: a plan that later versions can run, a little slower", rich_help_panel=PLAN),
        ] = False,
    ) -> None:
        """Export encoder and match as one graph, checked against torch; with --precision fp16, in float16 as well.

        With --target tensorrt, compile that graph for this machine's GPU instead. That needs no torch.
        """
        if target not in ("onnx", "tensorrt"):
            raise typer.BadParameter(f"unknown target '{target}'; use onnx or tensorrt", param_hint="--target")
        precision = precision or ("fp16" if target == "tensorrt" else "fp32")
        if precision not in ("fp32", "fp16"):
            raise typer.BadParameter(f"'{precision}' is neither fp32 nor fp16", param_hint="--precision")
        if float32 and precision == "fp32":
            raise typer.BadParameter("without --precision fp16 everything is float32 anyway", param_hint="--float32")
        if target == "tensorrt":
            plan(bundle, precision, float32 or [], batch, support, workspace, timing_cache, version_compatible)
            return
        for name in ("batch", "support", "workspace", "timing_cache", "version_compatible"):
            if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE":
                raise typer.BadParameter("it is for --target tensorrt", param_hint=f"--{name.replace('_', '-')}")
        need("train", "torch", "onnx", "safetensors")
        check_loading()
        from builder.compile import check_writable
        from builder.export import build_onnx
        from edge.bundle import GRAPH, open_bundle
        from edge.engine.record import left_behind

        opened = open_bundle(bundle)
        check_writable(opened.root)
        if precision == "fp16":
            from builder.engines import build_half
            from edge.engine.record import FOLDER

            built, record = build_half(opened, float32 or [])
        else:
            built = build_onnx(opened)
        for name, why, fix in left_behind(built):
            say(f"engine {name}: {why}; to rebuild it: {fix}")
        found = built.manifest.parity
        say(f"{built.root / GRAPH}: opset {built.manifest.opset}, {(built.root / GRAPH).stat().st_size / 1e6:.2f} MB")
        say(
            f"parity with {found['against']} over {found['windows']} windows: "
            f"embedding {found['embedding']:.1e}, distance {found['distance']:.1e}"
        )
        if precision == "fp16":
            path, gate = built.root / FOLDER / record.target / record.file, record.gate
            say(
                f"{path}: {path.stat().st_size / 1e6:.2f} MB, strongly typed; "
                f"readable by TensorRT {', '.join(record.reads)}, according to their lists"
            )
            say(
                f"gate over {gate.windows} windows: cosine ≥ {gate.cosine:.6f}, "
                f"distance within {gate.distance:.1e}, few-shot AUROC within {gate.auroc:.1e}"
            )

    @app.command(rich_help_panel=MODEL)
    def inspect(
        path: Annotated[Path, typer.Argument(help="a bundle, or one of its engines/<target> folders")],
    ) -> None:
        """Show what a bundle or an engine is, what can run it, and if it cannot run here, why."""
        check_loading()
        from builder.inspect import inspect as look
        from edge.commands.doctor import show

        show(look(path))

    @app.command(rich_help_panel=MODEL)
    def verify(bundle: Annotated[Path, typer.Argument(help="the bundle to check")]) -> None:
        """Check that a bundle is whole and computes here what it should; exit code 1 if not."""
        check_loading()
        from builder.verify import verify as check
        from edge.bundle import open_bundle
        from edge.commands.doctor import show

        if show(check(open_bundle(bundle))):
            raise typer.Exit(1)
