"""Make docs/demo.svg: what `haad-edge demo` shows during the fall.

    python docs/make_picture.py [OUT.svg]

Runs the demo itself, with its engine and its cameras as processes, and keeps the first view in which the fall's alert
has stood for a while. Takes about half a minute. Only the terminal is replaced, by one that records.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group
from rich.text import Text

from edge.commands import demo

WIDTH = 112
RED = 14
"""Scores beyond the limit that the row of blocks should show."""
# Fonts of the reader's own machine: rich would name files on another host.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.S).replace("Fira Code", "ui-monospace")


class Still:
    """Stands in for rich's Live: keeps the view once it is the wanted one, then ends the demo as Ctrl-C would."""

    def __init__(self) -> None:
        self.view: Group | None = None
        self.wanted = False

    def draw(self, cameras: list[demo.Camera], news: list[Text], left: float) -> Group:
        view = _draw(cameras, news, left)
        self.wanted = any(c.alert and sum(s >= 1 for s in c.scores) >= RED for c in cameras)
        return view

    def update(self, view: Group) -> None:
        if self.wanted:
            self.view = view
            raise KeyboardInterrupt

    def __enter__(self) -> Still:
        return self

    def __exit__(self, *_: Any) -> None: ...


_draw = demo._picture


def main(out: Path) -> int:
    """Write the picture; 1 when the demo ended without an alert."""
    still = Still()
    demo.out = Console(file=io.StringIO(), force_terminal=True, width=WIDTH)
    demo.Live = lambda **_: still  # type: ignore[misc, assignment]
    demo._picture = still.draw
    with contextlib.suppress(KeyboardInterrupt):
        demo.show(None, seconds=45)
    if still.view is None:
        print("no alert stood long enough; nothing was written", file=sys.stderr)
        return 1
    console = Console(record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=WIDTH)
    console.print(still.view, "")
    svg = console.export_svg(title="haad-edge demo", code_format=FORMAT, unique_id="demo")
    # Each line is cut off at its foot, which in other fonts costs the underscores.
    out.write_text(re.sub(r' clip-path="url\(#demo-line-\d+\)"', "", svg) + "\n", encoding="utf-8")
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo.svg")))
