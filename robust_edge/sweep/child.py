"""`robust-edge` as a child process that ends when its parent does: python -m robust_edge.sweep.child COMMAND ...

The parent holds the other end of stdin and never writes, so that the end of stdin is the end of the parent, even if it
was killed.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _terminate_after_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the command."""
    threading.Thread(target=_terminate_after_parent, daemon=True).start()
    runpy.run_module("robust_edge", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
