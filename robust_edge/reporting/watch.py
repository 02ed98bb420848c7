"""Write a report again whenever one of its runs has changed, until all of them are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from robust_edge.run.directory import CHECKPOINT, METRICS, Run

SECONDS = 5.0
"""Between two looks at the runs, and between two reloads of the page in a browser."""


def watch(runs: Sequence[Run], write: Callable[[bool], None], *, pause: Callable[[float], None] = time.sleep) -> None:
    """Call `write` at once, and after each epoch and at the end of each run.

    Args:
        runs: finished or not.
        write: writes the report; is given whether the training of a run goes on.
        pause: waits so many seconds.
    """
    written: list[float] | None = None
    while True:
        training = not all(run.finished for run in runs)  # before the files are read, so that no change is missed
        found = [_changed(run, name) for run in runs for name in (METRICS, CHECKPOINT)]
        if found != written or not training:
            write(training)
            written = found
        if not training:
            return
        pause(SECONDS)


def _changed(run: Run, name: str) -> float:
    """When a file of a run was written; 0 before."""
    path = run.path / name
    return path.stat().st_mtime if path.is_file() else 0.0
