"""`robust-edge-device verify`."""

from __future__ import annotations

import dataclasses
import functools
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, Sequence, Tuple, TypeVar

import click

from robust_edge_runtimes.cli.options import (
    BUNDLE,
    OUTPUT_FILE,
    THREADS,
    examples,
    lock_outputs,
    mode_options,
    refuse_same_file,
)
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options
from robust_edge_runtimes.modes.mode import Mode, chosen_modes, mode_help
from robust_edge_runtimes.modes.settings import ModeSettings, without_none
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.flags import FLAGS
from robust_edge_runtimes.verdict.measurement import Budget
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, MOST_IMAGES

if TYPE_CHECKING:
    from robust_edge_runtimes.verdict.judge import Verdict

SEED_HELP = "Seed of the drawn images and of every attack.  [default: another one each time, which verify.json records]"
ALLOW_HELP = f"Do not fail for this validity flag; repeatable. Flags: {', '.join(FLAGS)}."
F = TypeVar("F", bound=Callable[..., Any])


class ImageLimit(click.IntRange):
    """A number of images that can decide a verdict."""

    def __init__(self) -> None:
        super().__init__(MIN_IMAGES, MOST_IMAGES)

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Any:
        """As IntRange; the error for too few images says what to do."""
        count = click.INT.convert(value, param, ctx)
        if count < MIN_IMAGES:
            self.fail(f"{count} images cannot decide a verdict; give --limit {MIN_IMAGES} or more", param, ctx)
        return super().convert(count, param, ctx)


def verify_options(modes: Sequence[Mode], *, default_limit: str, with_run: bool = False) -> Callable[[F], F]:
    """A decorator that adds the options of both `verify` commands.

    The command receives `modes`, `limit`, `seed`, `threads`, `out` and `junit`, the options as `budget: Budget`, and
    each option of a mode by its name, None if not given.

    Args:
        modes: rows of a table of modes.
        default_limit: which images are used where no limit is given, for the help text.
        with_run: the command takes a run: modes that need one run by default, too, and the black box with few queries.
    """
    points = "Largest allowed loss of {} accuracy, in points."
    options = (
        click.option(
            "--mode",
            "modes",
            multiple=True,
            type=click.Choice([mode.name for mode in modes]),
            help=mode_help(modes, with_run=with_run),
        ),
        click.option(
            "--limit",
            type=ImageLimit(),
            help=f"Largest number of images per mode, at least {MIN_IMAGES}.  [default: {default_limit}]",
        ),
        mode_options(modes, with_quick=with_run),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1), help=SEED_HELP),
        click.option(
            "--max-clean-drop", "budget_clean", default=Budget.clean, show_default=True, help=points.format("clean")
        ),
        click.option(
            "--max-robust-drop", "budget_robust", default=Budget.robust, show_default=True, help=points.format("robust")
        ),
        click.option("--allow", multiple=True, metavar="FLAG", help=ALLOW_HELP),
        THREADS,
        click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the verdict to this JSON file."),
        click.option(
            "--junit", type=OUTPUT_FILE, help="Also write the verdict as JUnit XML, for continuous integration."
        ),
    )

    def decorate(command: F) -> F:
        decorated = _with_budget(command)
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _with_budget(command: F) -> F:
    """Give the command its budget as one object and a seed; check and lock the files that it writes at its end."""

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        budget_clean: float,
        budget_robust: float,
        allow: Tuple[str, ...],
        seed: Optional[int],
        out: Optional[Path],
        junit: Optional[Path],
        **others: Any,
    ) -> Any:
        refuse_same_file(out, junit)
        _refuse_fixed_history(out)
        lock_outputs(out, junit)
        budget = Budget(budget_clean, budget_robust, allow)
        seed = secrets.randbits(32) if seed is None else seed
        return command(*args, budget=budget, seed=seed, out=out, junit=junit, **others)

    return wrapped  # type: ignore[return-value]


def _refuse_fixed_history(out: Optional[Path]) -> None:
    """Raise UsageError where the history of the verdicts in `out` cannot be continued."""
    from robust_edge_runtimes.verdict.history import history_file

    history = None if out is None else history_file(out)
    if history is not None and history.exists() and not (history.is_file() and os.access(str(history), os.W_OK)):
        raise click.UsageError(f"{str(history)!r}, the history of -o, cannot be written to; choose another path for -o")


def end_with(
    verdict: Verdict, context: click.Context, output: Output, *, out: Optional[Path], junit: Optional[Path]
) -> NoReturn:
    """Write the requested files, print the verdict, and exit with its exit code."""
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.junit import write_junit
    from robust_edge_runtimes.present.verdict import verdict_table
    from robust_edge_runtimes.verdict.history import add_to_history, with_history
    from robust_edge_runtimes.verdict.judge import EXIT_CODES

    verdict = with_history(verdict, out)
    text = verdict_table(verdict)
    with output.kept(text, verdict):
        if out is not None:
            write_json(out, dataclasses.asdict(verdict))
        add_to_history(verdict, out)
        if junit is not None:
            write_junit(junit, verdict)
    output.verdict(text, verdict, context, EXIT_CODES[verdict.outcome])


@click.command()
@click.argument("bundle", type=BUNDLE)
@limit_options
@verify_options(DEVICE_MODES, default_limit="all stored images")
@output_options
@click.pass_context
@examples(
    "robust-edge-device verify bundle/",
    "robust-edge-device verify bundle/ --mode replay --mode blackbox --limit 100 -o device.json",
)
def verify(
    context: click.Context,
    /,
    bundle: Path,
    modes: Tuple[str, ...],
    limit: Optional[int],
    seed: int,
    budget: Budget,
    threads: int,
    out: Optional[Path],
    junit: Optional[Path],
    output: Output,
    **options: Optional[int],
) -> None:
    """Attack the artifact on this device. Exit 0: passed; 1: failed; 4: damaged bundle; 5: undecided."""
    from robust_edge_runtimes.core.bundle import private_bundle
    from robust_edge_runtimes.load import load
    from robust_edge_runtimes.modes.sequence import judge_in_blocks
    from robust_edge_runtimes.verdict.inspection import inspect_artifact
    from robust_edge_runtimes.verdict.subject import subject_of

    settings = ModeSettings(limit, seed, without_none(options))
    with private_bundle(bundle) as opened, load(opened, threads=threads, from_source=True) as model:
        subject = subject_of(opened, model, limit=limit, seed=seed)
        inspection, chosen = inspect_artifact(subject), chosen_modes(modes, DEVICE_MODES)
        verdict = judge_in_blocks(subject, inspection, chosen, settings, budget, output.progress, output.note)
    end_with(verdict, context, output, out=out, junit=junit)
