"""What all commands share: how errors reach a person, how a missing extra is said, and who may be talked to."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from edge.errors import HaadError, MissingExtra

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
