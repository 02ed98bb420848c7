"""Run a sweep: start the cells that are not finished, and write the page and the tables of all results."""

from __future__ import annotations

from robust_edge.sweep.cell import Note, finished
from robust_edge.sweep.launch_options import LaunchOptions
from robust_edge.sweep.launchers import launcher
from robust_edge.sweep.plan import Plan
from robust_edge.sweep.results import CellResult, Row, SweepResult, cell_result, rows
from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.core.locks import locked

PAGE, TABLE, TIMES = "pareto.html", "pareto.csv", "latency.csv"


def run_sweep(plan: Plan, name: str, options: LaunchOptions, note: Note) -> SweepResult:
    """Run every step of every cell that is not finished, then write the page and the tables.

    Args:
        plan: of the sweep.
        name: of a launcher.
        options: how it starts cells.
        note: called with a message for the user.

    Raises:
        InputError: the folder holds something else, another process writes it, or a cell was started with other
            settings.
        KeyboardInterrupt, Terminated: after the running steps have ended.
    """
    launch = launcher(name)
    with locked(plan.folder):
        plan.check_folder()
        jobs = [plan.job(cell) for cell in plan.cells]
        waiting = [job for job in jobs if not finished(job)]
        start = launch(options) if waiting else None
        plan.write()
        if len(waiting) < len(jobs):
            note(f"{len(jobs) - len(waiting)} of {len(jobs)} cells are finished already")
        if start is not None:
            start(waiting, note)
        return _report(plan)


def status(plan: Plan) -> tuple[CellResult, ...]:
    """How far every cell is; nothing is written.

    Raises:
        InputError: the folder holds something else, or a cell was started with other settings.
    """
    plan.check_folder()
    return tuple(cell_result(plan, cell) for cell in plan.cells)


def _report(plan: Plan) -> SweepResult:
    from robust_edge.sweep.page import render
    from robust_edge.sweep.pareto import latency_csv, pareto_csv

    found = rows(plan)
    result = SweepResult(str(plan.folder), tuple(cell_result(plan, cell) for cell in plan.cells), found, _notes(found))
    write_atomic(plan.folder / TABLE, pareto_csv(plan.axes, found))
    write_atomic(plan.folder / TIMES, latency_csv(found))
    write_atomic(plan.folder / PAGE, render(plan, result))
    return result


def _notes(found: tuple[Row, ...]) -> tuple[str, ...]:
    attacks = sorted({f"{row.attacked.attack}, {row.attacked.images or 'all'} images" for row in found})
    if len(attacks) < 2:
        return ()
    return (
        f"the robust accuracies cannot be compared, since the attacks differ ({'; '.join(attacks[:3])}); add a step "
        "that attacks all networks alike, such as --then 'evaluate --eps 0.1'",
    )
