"""The entry point of `robust-edge` and of `python -m robust_edge`; Ctrl-C during imports is handled, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Ctrl-C during its first imports prints one line instead of a traceback."""
    try:
        from robust_edge.cli import main as command_line
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted before the command started; run it again\n")
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()
