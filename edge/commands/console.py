"""What all commands share: printing errors, ending on signals, and checking options."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from edge.errors import HaadError, MissingExtra, SettingsError

Keys = Annotated[Path | None, typer.Option(help="folder of CURVE keys, made by haad-edge keys")]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings, the same as for `run`")]
Remote = Annotated[bool, typer.Option(help="permit an address on another host, unencrypted")]

MOST = 1_000_000
"""The largest number that an option takes unless it says otherwise. In seconds it is eleven days; ZeroMQ cannot wait
for a month."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def harmless(text: str) -> str:
    """The text with control characters spelt out: names from files and messages must not move the cursor."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in text)


def say(text: str, *, style: str = "", to: Console = out) -> None:
    """Print a text as it is: never wrapped, so that a command in it can be copied, and brackets are not markup."""
    to.print(harmless(text), style=style, markup=False, soft_wrap=True)


def fail(e: HaadError) -> NoReturn:
    """Print what happened, why, and what to do next; then exit."""
    err.print("error: ", end="", style="bold red")
    say(e.what, to=err)
    for label, text in (("why", e.why), ("next", e.fix)):
        if text:
            err.print(f"  {label}: ", end="", style="bold")
            say(text, to=err)
    sys.exit(e.exit_code)


@contextlib.contextmanager
def signals() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Let SIGTERM, Ctrl-C and a closed terminal call a function, and restore the handlers after the block.

    Yields a function that takes the one to be called. Signals that are ignored, as under nohup, stay ignored.
    """
    before = {
        n: h for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if (h := signal.getsignal(n)) != signal.SIG_IGN
    }

    def call(stop: Callable[[], None]) -> None:
        for n in before:
            signal.signal(n, lambda *_: stop())

    try:
        yield call
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def need(extra: str, *modules: str) -> None:
    """Raise MissingExtra if a module of the extra is not installed."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise MissingExtra(
            f"this command needs {', '.join(missing)}",
            why="the plain install holds only what a device needs",
            fix=f"pip install 'haad-edge[{extra}]'",
        )


def number(help: str, *, min: float, max: float = MOST, step: float = 0.0) -> Any:
    """An option for a float from `min` to `max`; with `step`, 0 or at least `step`. Every float option uses it.

    typer's own bounds let nan through, and an option without bounds lets inf through.
    """

    def check(value: float | None) -> float | None:
        if value is not None and math.isnan(value):
            raise typer.BadParameter("nan is not a number.")
        if value is not None and 0 < value < step:
            raise typer.BadParameter(f"{value:g} must be 0 or at least {step:g}.")
        return value

    return typer.Option(help=help, min=min, max=max, callback=check)


class Commands(TyperGroup):
    """The group of all commands. It refuses empty arguments, which typer would take for the working folder as paths."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises SettingsError that names the option, or the position, of an empty argument."""
        for before, given in pairwise(["", *args]):
            name, _, value = given.partition("=") if given.startswith("--") else (before, "", given)
            if not value and (given.endswith("=") or not given):
                what = name if name.startswith("--") else f"the argument after '{before}'"
                raise SettingsError(
                    f"{what} is empty",
                    why="as a path it would mean the working folder; perhaps a shell variable is not set",
                    fix="give it a value, or leave it out",
                )
        return super().parse_args(ctx, args)
