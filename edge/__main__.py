"""Starts `haad-edge` and `python -m edge`.

Nothing slow is imported at module level, so that Ctrl-C during start-up prints no traceback.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of `edge.cli`; exit with 130 if interrupted before that can handle it itself."""
    try:
        from edge.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
