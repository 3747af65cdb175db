"""`haad-edge`, and `python -m edge`: here nothing is imported that takes time, so that Ctrl-C is quiet meanwhile."""

from __future__ import annotations

import sys


def main() -> None:
    """The command line, see `edge.cli`; 130 when it is interrupted before it can see to that itself."""
    try:
        from edge.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
