"""Write a report again whenever one of its runs has changed, until all of them are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from robust_edge.run.directory import CHECKPOINT, METRICS, Run

SECONDS = 5.0
"""Time between two checks of the runs, and between two reloads of the page in a browser."""
QUIET_SECONDS = 1800.0
"""Time without a new epoch after which `quiet` is called: a run may have been killed."""


def watch(
    runs: Sequence[Run],
    write: Callable[[bool], None],
    *,
    quiet: Callable[[float], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Call `write` at once, and after each epoch and at the end of each run; return when all runs are finished.

    A run that was killed is never finished.

    Args:
        runs: finished or not.
        write: writes the report; is given whether the training of a run goes on.
        quiet: called with the seconds without a new epoch, once each time that there are QUIET_SECONDS of them.
        pause: waits so many seconds.
    """
    written: list[float] | None = None
    waited = 0.0
    while True:
        training = not all(run.finished for run in runs)  # before the files are read, so that no change is missed
        found = [_changed(run, name) for run in runs for name in (METRICS, CHECKPOINT)]
        if found != written or not training:
            write(training)
            written, waited = found, 0.0
        if not training:
            return
        pause(SECONDS)
        waited += SECONDS
        if waited == QUIET_SECONDS:
            quiet(waited)


def _changed(run: Run, name: str) -> float:
    """When a file of a run was written; 0 before."""
    path = run.path / name
    return path.stat().st_mtime if path.is_file() else 0.0
