"""Start cells as jobs of submitit: on Slurm, or in its local executors."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robust_edge.sweep.cell import GRACE_S, POLL_S, CellJob, Note, Resources, run_cell
from robust_edge.sweep.launch_options import LaunchOptions
from robust_edge_runtimes.core.errors import BackendUnavailable, InputError

MINUTES = 240
DURATION = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")  # minutes, H:M:S, or D-H:M:S, as Slurm takes it
MOST_REQUEUES = 1000  # a job that reaches its time limit is queued again and resumes


class ClusterCell:
    """A cell as a job. Where Slurm preempts it or its time is over, its step saves its state and it is queued again."""

    def __init__(self, job: CellJob, threads: int) -> None:
        self._job, self._threads = job, threads
        self._stop: threading.Event | None = None
        self._worker: threading.Thread | None = None

    def __call__(self) -> None:
        """Run the cell, in another thread because the handler of signals interrupts this one."""
        self._stop = threading.Event()
        arguments = (self._job, Resources(self._threads), self._stop, _print)
        self._worker = threading.Thread(target=run_cell, args=arguments)
        self._worker.start()
        try:
            self._worker.join()
        finally:
            self._end()

    def checkpoint(self) -> Any:
        """What submitit queues again."""
        from submitit.helpers import DelayedSubmission

        self._end()
        return DelayedSubmission(ClusterCell(self._job, self._threads))

    def _end(self) -> None:
        assert self._stop is not None
        assert self._worker is not None
        self._stop.set()
        self._worker.join()


def launch_slurm(options: LaunchOptions) -> Callable[[Sequence[CellJob], Note], None]:
    """A function that submits jobs to Slurm as one array and waits for them; an interruption cancels them.

    Raises:
        BackendUnavailable: there is no Slurm on this machine.
        InputError: a parameter is unknown.
    """
    return _checked("slurm", options)


def launch_local(options: LaunchOptions) -> Callable[[Sequence[CellJob], Note], None]:
    """A function that runs jobs with submitit's local executor."""
    return _checked("local", options)


def launch_debug(options: LaunchOptions) -> Callable[[Sequence[CellJob], Note], None]:
    """A function that runs jobs with submitit's debug executor."""
    return _checked("debug", options)


def _checked(cluster: str, options: LaunchOptions) -> Callable[[Sequence[CellJob], Note], None]:
    with tempfile.TemporaryDirectory() as folder:  # since submitit creates it
        _executor(cluster, dataclasses.replace(options, folder=Path(folder)))
    return functools.partial(_run, cluster, options)


def _run(cluster: str, options: LaunchOptions, jobs: Sequence[CellJob], note: Note) -> None:
    executor = _executor(cluster, options)
    cells = {job.name: ClusterCell(job, options.threads) for job in jobs}
    running: dict[str, Any] = {}
    try:
        if cluster == "slurm" and len(cells) > 1:
            running = dict(zip(cells, executor.submit_array(list(cells.values())), strict=True))
            note(f"submitted {len(running)} jobs; their files are in {options.folder}")
        waiting = [name for name in cells if name not in running]
        while waiting or running:
            while waiting and len(running) < options.jobs:
                name = waiting.pop(0)
                running[name] = executor.submit(cells[name])
            for name in [name for name, handle in running.items() if handle.done()]:
                note(f"{name}: its job has ended")
                del running[name]
            time.sleep(POLL_S if cluster != "slurm" else 10 * POLL_S)
    except BaseException:
        _cancel(list(running.values()))
        raise


def _cancel(handles: Sequence[Any]) -> None:
    """Cancel jobs, and wait until they have ended or are not heard of any more."""
    for handle in handles:
        handle.cancel(check=False)
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end and not all(handle.done(force_check=True) for handle in handles):
        time.sleep(POLL_S)


def _executor(cluster: str, options: LaunchOptions) -> Any:
    import submitit

    if options.gpus:
        raise InputError("`gpus` is for the launcher local; ask Slurm for GPUs with gpus_per_node=1 in `slurm`")
    if not DURATION.fullmatch(str(options.slurm.get("time", MINUTES))):
        raise InputError(f"`slurm`: time is minutes, H:M:S or D-H:M:S; it is {options.slurm['time']!r}")
    try:
        executor = submitit.AutoExecutor(options.folder, cluster=cluster, slurm_max_num_timeout=MOST_REQUEUES)
    except RuntimeError as cause:
        raise BackendUnavailable(f"Slurm is not available here ({cause}); use the launcher local") from cause
    given = {f"slurm_{name}": value for name, value in options.slurm.items()}
    try:
        executor.update_parameters(
            name="robust-edge",
            timeout_min=MINUTES,
            cpus_per_task=options.threads,
            slurm_array_parallelism=options.jobs,
            **given,
        )
    except (NameError, AssertionError) as cause:
        known = " ".join(str(cause).split())[:300]
        raise InputError(f"`slurm`: {known}") from cause
    return executor


def _print(text: str) -> None:
    sys.stderr.write(text + os.linesep)
    sys.stderr.flush()
