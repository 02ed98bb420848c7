"""The entry point of `robust-edge` and of `python -m robust_edge`: nothing is imported before Ctrl-C is minded."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interrupt during its first imports is one line, too."""
    try:
        from robust_edge.cli import main as command_line
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
