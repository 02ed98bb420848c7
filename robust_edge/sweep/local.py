"""Start cells on this machine: a number of them at a time, each on CPU cores of its own."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from robust_edge.sweep.cell import CellJob, Note, Resources, run_cell
from robust_edge.sweep.launch_options import LaunchOptions, available_cores
from robust_edge_runtimes.core.errors import InputError


def launch(options: LaunchOptions) -> Callable[[Sequence[CellJob], Note], None]:
    """A function that runs jobs.

    Raises:
        InputError: there are fewer CPU cores than were asked for, or parameters for Slurm are given.
    """
    if options.slurm:
        raise InputError("`slurm` parameters are for the launcher submitit")
    return functools.partial(_run, parts(options, available_cores()))


def _run(resources_of_cells: Sequence[Resources], jobs: Sequence[CellJob], note: Note) -> None:
    """Run all jobs; when this thread is interrupted, the running steps are told to end, and waited for."""
    free: queue.SimpleQueue[Resources] = queue.SimpleQueue()
    for part in resources_of_cells:
        free.put(part)
    stop = threading.Event()

    def run(job: CellJob) -> None:
        resources = free.get()
        try:
            run_cell(job, resources, stop, note)
        finally:
            free.put(resources)

    with ThreadPoolExecutor(len(resources_of_cells)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            raise


def parts(options: LaunchOptions, cores: Sequence[int]) -> list[Resources]:
    """The resources of the cells that run at the same time: parts of the CPU cores, and the GPUs in turns.

    Raises:
        InputError: there are fewer CPU cores than were asked for.
    """
    if options.cores is not None and options.cores * options.jobs > len(cores):
        raise InputError(
            f"{options.jobs} cells with {options.cores} CPU cores each need {options.jobs * options.cores}; there are "
            f"{len(cores)}: choose fewer with `jobs` or `cores`"
        )
    each = options.cores or max(1, len(cores) // options.jobs)
    gpus = options.gpus
    return [
        Resources(
            threads=each,
            cores=tuple(cores[(i * each + k) % len(cores)] for k in range(each)),
            gpu=gpus[i % len(gpus)] if gpus else None,
        )
        for i in range(options.jobs)
    ]
