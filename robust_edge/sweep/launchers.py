"""The table of launchers, which start the cells of a sweep on this machine or on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from robust_edge.plugins import Row, load
from robust_edge.sweep.cell import CellJob, Note
from robust_edge.sweep.launch_options import LaunchOptions

LAUNCHERS = {
    "local": Row("robust_edge.sweep.local:launch", "processes on this machine, each on its own CPU cores"),
    "submitit": Row("robust_edge.sweep.cluster:launch_slurm", "jobs of Slurm"),
    "submitit-local": Row("robust_edge.sweep.cluster:launch_local", "the same jobs as processes on this machine"),
    "submitit-debug": Row(
        "robust_edge.sweep.cluster:launch_debug", "the same jobs one after the other, in this process"
    ),
}

Start = Callable[[Sequence[CellJob], Note], None]
"""Runs all jobs, and returns when they have ended; an exception such as KeyboardInterrupt ends them, too."""
Launcher = Callable[[LaunchOptions], Start]
"""Checks the options, before anything is written."""


def launcher(name: str) -> Launcher:
    """The launcher of a row.

    Raises:
        InputError: there is no such row.
    """
    found: Launcher = load("launcher", name, LAUNCHERS)
    return found
