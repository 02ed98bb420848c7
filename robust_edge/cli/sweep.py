"""`robust-edge sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_edge.cli.bench import bench
from robust_edge.cli.compress import SETTINGS, given_settings
from robust_edge.cli.evaluate import evaluate
from robust_edge.cli.export import export
from robust_edge.cli.types import ALLOW_CODE, PATH
from robust_edge.cli.verify import verify
from robust_edge.config.presets import DEFAULT, PRESETS
from robust_edge.settings.options import setting_options
from robust_edge.sweep.launchers import LAUNCHERS
from robust_edge_runtimes.cli.options import COUNT, examples
from robust_edge_runtimes.cli.output import Output, output_options

if TYPE_CHECKING:
    from robust_edge.sweep.plan import Plan, Step
    from robust_edge.sweep.results import CellResult, Row, SweepResult

MOST_JOBS = 10_000  # as many cells as a grid may have
PLACEHOLDER = Path("BUNDLE-OR-RUN")
STEPS: dict[str, tuple[click.Command, tuple[str, ...], tuple[str, ...]]] = {
    "evaluate": (evaluate, (str(PLACEHOLDER),), ("out",)),
    "export": (export, (str(PLACEHOLDER), "-o", str(PLACEHOLDER)), ("out", "overwrite")),
    "verify": (verify, (str(PLACEHOLDER),), ("run", "out", "junit")),
    "bench": (bench, (str(PLACEHOLDER),), ("out", "targets", "shape")),
}
"""The commands that can be steps, what stands for the run or bundle of a cell, and the parameters that `sweep` sets."""


@click.command()
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="KEY=A,B",
    help="Values of a setting, or of preset; repeatable. A run is trained for every combination. KEY is a name of "
    "docs/settings.md, or that of an option below without dashes.",
)
@click.option(
    "--then",
    multiple=True,
    metavar="COMMAND",
    help=f"Command for every cell, with its options: {', '.join(STEPS)}; repeatable, in this order. verify and bench "
    "take the bundle of the last export before them.",
)
@click.option(
    "--launcher",
    type=click.Choice(list(LAUNCHERS)),
    default="local",
    show_default=True,
    help="; ".join(f"{name}: {row.summary}" for name, row in LAUNCHERS.items()) + ".",
)
@click.option("--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, help="Cells at a time.")
@click.option(
    "--cores", type=COUNT, help="CPU cores of each cell.  [default: those of this machine, divided by --jobs]"
)
@click.option("--gpus", metavar="0,1", help="GPUs that the cells of launcher local take in turns.")
@click.option(
    "--slurm",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of submitit for Slurm, such as partition=gpu, time=240 (minutes) or gpus_per_node=1; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Print the state of every cell and the commands, and run nothing.")
@click.option(
    "--preset", help=f"Preset of all cells: {', '.join(PRESETS)}.  [default: {DEFAULT}, unless --config is given]"
)
@click.option("--config", "config_file", type=PATH, help="YAML file with settings of all cells.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting of docs/settings.md; repeatable."
)
@setting_options(SETTINGS)
@click.option("-o", "--out", required=True, type=PATH, help="Folder of the sweep.")
@ALLOW_CODE
@output_options
@click.pass_context
@examples(
    "robust-edge sweep --eps 0.1 --grid keep=0.2,0.1,0.05 --grid arch=small_cnn,resnet18 -o sweeps/digits",
    "robust-edge sweep --grid preset=quick,strong --grid seed=0,1,2 --then 'evaluate --eps 0.1' -o sweeps/presets",
    "robust-edge sweep --grid keep=0.2 --then 'export --target x86-cpu-sparse' --then verify --then bench -o sweeps/a",
    "robust-edge sweep --grid keep=0.2,0.1 --launcher submitit --jobs 8 --cores 4 --slurm partition=gpu -o sweeps/keep",
)
def sweep(
    context: click.Context,
    /,
    grid: tuple[str, ...],
    then: tuple[str, ...],
    launcher: str,
    jobs: int,
    cores: int | None,
    gpus: str | None,
    slurm: tuple[str, ...],
    dry_run: bool,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    out: Path,
    allow_code: bool,
    output: Output,
    **flags: Any,
) -> None:
    """Train a run for every combination of settings, run further commands for each, and compare them on one page.

    Repeat the command to resume: finished steps are skipped, an interrupted training continues, and cells that failed
    are tried again. A larger grid in the same folder trains only what is new.

    Exit 0: every cell is done; 1: a cell failed, or a check in one; 5: a verdict is undecided.
    """
    from robust_edge.settings.notation import read_assignment
    from robust_edge.sweep.grid import CommonSettings, grid_cells, read_axis
    from robust_edge.sweep.launch_options import LaunchOptions
    from robust_edge.sweep.plan import COMPRESS, Plan, Step

    axes = tuple(map(read_axis, grid))
    common = CommonSettings(preset=preset, file=config_file, flags=given_settings(flags), assignments=assignments)
    steps = (Step(COMPRESS), *map(_read_step, then))
    out = out.absolute()
    plan = Plan(folder=out, axes=axes, cells=grid_cells(axes, common), steps=steps, allow_code=allow_code)
    if dry_run:
        _print_plan(plan, output)
        return
    from robust_edge.sweep.sweep import run_sweep

    options = LaunchOptions(
        folder=out / "jobs",
        jobs=jobs,
        cores=cores,
        gpus=tuple(gpus.split(",")) if gpus else (),
        slurm=dict(map(read_assignment, slurm)),
    )
    result = run_sweep(plan, launcher, options, output.note)
    for line in result.notes:
        output.note(f"note: {line}")
    output.verdict(_summary(result), result, context, result.exit_code)


def _read_step(text: str) -> Step:
    """Read a --then; the command parses it, so that a mistake ends the sweep before its first training."""
    from robust_edge.sweep.plan import EXPORT, Step
    from robust_edge_exporters.target import target_named
    from robust_edge_runtimes.core.errors import InputError, unknown_name

    try:
        name, *words = shlex.split(text)
    except ValueError as cause:
        raise InputError(f"--then {text!r} is not a command ({cause})") from cause
    if name not in STEPS:
        raise unknown_name("step", name, STEPS)
    command, arguments, reserved = STEPS[name]
    if {"-h", "--help"} & {*words}:
        raise InputError(f"--then {text!r} is not a command to run; robust-edge {name} --help lists its options")
    try:
        context = command.make_context(name, [*arguments, *words])
    except click.UsageError as cause:
        raise InputError(f"--then {text!r}: {cause.format_message()}") from cause
    for parameter in command.params:
        if parameter.name in reserved and context.params[parameter.name] not in (None, (), False, PLACEHOLDER):
            raise InputError(f"--then {text!r}: sweep sets {max(parameter.opts, key=len)} itself; leave it out")
    if name != EXPORT:
        return Step(name, tuple(words))
    return Step(name, tuple(words), target_named(context.params["target"], context.params["jetpack"]).name)


def _print_plan(plan: Plan, output: Output) -> None:
    from robust_edge.sweep.sweep import status

    states = status(plan)
    commands = {
        cell.name: [shlex.join(["robust-edge", *plan.arguments(cell, i)]) for i in range(len(plan.steps))]
        for cell in plan.cells
    }
    lines = [_state_table(states, ()), ""]
    for cell in plan.cells:
        lines += [f"# {cell.name}", *commands[cell.name]]
    import dataclasses

    output.result(
        "\n".join(lines), [{**dataclasses.asdict(state), "commands": commands[state.name]} for state in states]
    )


def _state_table(cells: tuple[CellResult, ...], rows: tuple[Row, ...]) -> str:
    """One line for each cell; with one line for each of its bundles once it is trained."""
    from robust_edge_runtimes.present.tables import percent, table

    lines = []
    for cell in cells:
        state = [cell.name, cell.state, f"{cell.done}/{cell.steps}"]
        found = [row for row in rows if row.cell == cell.name]
        for row in found:
            kilobytes = "" if row.bytes is None else f"{row.bytes / 1e3:.1f}"
            milliseconds = "" if row.latency_ns is None else f"{row.latency_ns / 1e6:.3f}"
            macs = "" if row.macs is None else f"{row.macs / 1e6:.3f}"
            accuracies = [percent(row.attacked.clean), percent(row.attacked.robust)]
            lines.append([*state, row.target, *accuracies, kilobytes, macs, milliseconds, row.verdict or ""])
        if not found:
            lines.append([*state, *[""] * 7])
    header = ["cell", "state", "steps", "target", "clean", "robust", "kB", "M MACs", "ms", "verify"]
    used = [i for i in range(len(header)) if i < 3 or any(line[i] for line in lines)]
    return table([header[i] for i in used], [[line[i] for i in used] for line in lines], words=2)


def _summary(result: SweepResult) -> str:
    from robust_edge.sweep.sweep import PAGE, TABLE

    failed = [f"FAILED {cell.name}: {cell.why}" for cell in result.cells if cell.why]
    folder = Path(result.folder)
    return "\n".join(
        [_state_table(result.cells, result.rows), *failed, "", f"page: {folder / PAGE}", f"table: {folder / TABLE}"]
    )
