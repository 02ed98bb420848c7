"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import contextlib
import os
import signal

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Let the system kill this process when the thread that started it ends, however it ends; on Linux only.

    Args:
        parent: process id of the parent; if it has ended already, this process ends now.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
