"""What all commands share: how errors reach a person, how a missing extra is said, and who may be talked to."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer
from rich.console import Console

from edge.errors import HaadError, MissingExtra, SettingsError

Keys = Annotated[Path | None, typer.Option(help="folder of CURVE keys (haad-edge keys makes them)")]
Remote = Annotated[bool, typer.Option(help="permit an address on another host, unencrypted")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str, *, style: str = "", to: Console = out) -> None:
    """One line as it is: never wrapped, so that a command in it can be copied, and brackets are no markup."""
    to.print(text, style=style, markup=False, soft_wrap=True)


def fail(e: HaadError) -> NoReturn:
    """Print what happened, why, and what to run next; then exit."""
    err.print("error: ", end="", style="bold red")
    say(e.what, to=err)
    for label, text in (("why", e.why), ("next", e.fix)):
        if text:
            err.print(f"  {label}: ", end="", style="bold")
            say(text, to=err)
    sys.exit(e.exit_code)


def need(extra: str, *modules: str) -> None:
    """Raises MissingExtra when a module of the extra is not installed."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise MissingExtra(
            f"this command needs {', '.join(missing)}",
            why="the plain install is what a device needs, and no more",
            fix=f"pip install 'haad-edge[{extra}]'",
        )


def refuse_empty_paths(app: typer.Typer) -> None:
    """Let no command, nor those of its groups, take "" for a path: it would be the working folder."""
    for command in app.registered_commands:
        if command.callback is not None:
            _refuse_empty_paths(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            refuse_empty_paths(group.typer_instance)


def _refuse_empty_paths(command: Any) -> None:
    signature = inspect.signature(command, eval_str=True)
    for p in signature.parameters.values():
        kind, *about = get_args(p.annotation) if hasattr(p.annotation, "__metadata__") else (p.annotation,)
        if Path in (kind, *get_args(kind)):
            for info in about:
                if isinstance(info, typer.models.OptionInfo):
                    # Within Annotated a first name stands where the default would.
                    names = [n for n in (info.default, *(info.param_decls or ())) if str(n).startswith("--")]
                    info.parser = _path(
                        str(names[0]) if names else f"--{p.name.replace('_', '-')}", ", or leave it out"
                    )
                elif isinstance(info, typer.models.ArgumentInfo):
                    info.parser = _path(p.name.upper())
    # Typer evaluates a signature of strings each time anew, and would not see the parsers.
    command.__signature__ = signature
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}


def _path(name: str, otherwise: str = "") -> Callable[[str], Path]:
    def path(text: str) -> Path:
        if not text:
            raise SettingsError(
                f"{name} is empty", why="it would be the working folder", fix=f"give it a value{otherwise}"
            )
        return Path(text)

    return path
