"""`robust-edge verify`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from robust_edge.cli.types import PATH, SEED, AnyRadius
from robust_edge.verification.background import BackgroundRebuild, second_cpu
from robust_edge.verification.modes.table import MODES
from robust_edge.verification.settings import VerifySettings
from robust_edge_runtimes.cli.options import OUTPUT_FILE, examples, mode_options, refuse_same_file
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.modes.mode import chosen_modes, mode_help
from robust_edge_runtimes.modes.settings import given
from robust_edge_runtimes.verdict.measurement import Budget


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--against", type=PATH, help="The run that the bundle was exported from.")
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice([mode.name for mode in MODES]),
    help=mode_help(MODES),
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Most images per mode.  [default: all; blocks of 500, 500, 1000, 2000, ... are drawn until it is decided]",
)
@click.option(
    "--eps",
    type=AnyRadius(),
    help="Radius of every attack.  [default: the run's own; without --against the bundle's]",
)
@mode_options(MODES, with_few=True)
@click.option(
    "--seed",
    type=SEED,
    help="Seed of the drawn images and of every attack.  [default: another one each time, which verify.json records]",
)
@click.option(
    "--max-clean-drop",
    default=Budget.clean,
    show_default=True,
    help="Largest allowed loss of clean accuracy, in points.",
)
@click.option(
    "--max-robust-drop",
    default=Budget.robust,
    show_default=True,
    help="Largest allowed loss of robust accuracy, in points.",
)
@click.option("--allow", multiple=True, metavar="FLAG", help="Do not fail for this validity flag; repeatable.")
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads of the artifact."
)
@click.option("--data-dir", help="Folder of the run's images, if they were moved.")
@click.option(
    "--merge",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Add what `robust-edge-device verify -o FILE` found on a device with the same artifact.",
)
@click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the verdict to this JSON file.")
@click.option("--junit", type=OUTPUT_FILE, help="Also write the verdict as JUnit XML, for continuous integration.")
@output_options
@click.pass_context
@examples(
    "robust-edge verify bundles/digits-10 --against runs/digits-10",
    "robust-edge verify bundles/digits-10 --against runs/digits-10 --mode whitebox --mode blackbox --limit 200",
    "robust-edge verify bundles/digits-10 --mode replay --max-robust-drop 0.5 -o verify.json",
    "robust-edge verify bundles/digits-10 --against runs/digits-10 --merge jetson.json --junit verify.xml",
)
def verify(
    context: click.Context,
    /,
    bundle: Path,
    against: Path | None,
    modes: tuple[str, ...],
    limit: int | None,
    eps: float | None,
    seed: int | None,
    max_clean_drop: float,
    max_robust_drop: float,
    allow: tuple[str, ...],
    threads: int,
    data_dir: str | None,
    merge: tuple[Path, ...],
    out: Path | None,
    junit: Path | None,
    output: Output,
    **options: int | None,
) -> None:
    """Attack the file that ships. Exit 0: passed; 1: failed; 3: no backend; 4: damaged bundle; 5: undecided."""
    import dataclasses
    import secrets

    from robust_edge.verification.merge import merged, read_verdict, refuse_other_artifacts
    from robust_edge_runtimes.core.bundle import open_bundle
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.junit import write_junit
    from robust_edge_runtimes.present.verdict import verdict_table
    from robust_edge_runtimes.verdict.history import add_to_history, with_history
    from robust_edge_runtimes.verdict.judge import EXIT_CODES

    refuse_same_file(out, junit)
    budget = Budget(max_clean_drop, max_robust_drop, allow)
    seed = secrets.randbits(32) if seed is None else seed
    settings = VerifySettings(modes=modes, limit=limit, eps=eps, seed=seed, data_dir=data_dir, options=given(options))
    opened, others = open_bundle(bundle), {str(path): read_verdict(path) for path in merge}
    refuse_other_artifacts(others, opened.manifest)
    with _background(bundle, against, modes, data_dir) as background:
        from robust_edge.run.directory import open_run
        from robust_edge.verification.verify import verify_bundle

        run = None if against is None else open_run(against)
        verdict = verify_bundle(
            opened, run, budget, settings, threads=threads, progress=output.progress, background=background
        )
    verdict = merged(verdict, others, budget)
    if out is not None:
        verdict = with_history(verdict, out)
        write_json(out, dataclasses.asdict(verdict))
        add_to_history(verdict, out)
    if junit is not None:
        write_junit(junit, verdict)
    output.result(verdict_table(verdict), verdict)
    context.exit(EXIT_CODES[verdict.outcome])


def _background(
    bundle: Path, against: Path | None, modes: tuple[str, ...], data_dir: str | None
) -> BackgroundRebuild | contextlib.nullcontext[None]:
    """Start the comparison of mode `rebuild` where it will be asked for and can run beside the attacks."""
    chosen = [mode.name for mode in chosen_modes(modes, MODES, with_run=against is not None)]
    if against is None or chosen == ["rebuild"] or "rebuild" not in chosen or not second_cpu():
        return contextlib.nullcontext()
    return BackgroundRebuild(bundle, against, data_dir)
