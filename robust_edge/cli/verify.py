"""`robust-edge verify`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from robust_edge.cli.types import ALLOW_CODE, PATH, AnyRadius
from robust_edge.verification.background import BackgroundRebuild, second_cpu
from robust_edge.verification.modes.table import MODES
from robust_edge.verification.settings import VerifySettings
from robust_edge_runtimes.cli.options import examples
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options
from robust_edge_runtimes.cli.verify import end_with, verify_options
from robust_edge_runtimes.modes.mode import chosen_modes
from robust_edge_runtimes.modes.settings import without_none
from robust_edge_runtimes.verdict.measurement import Budget


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--against", "run", type=PATH, metavar="RUN", help="The run that the bundle was exported from.")
@click.option(
    "--eps",
    type=AnyRadius(),
    help="Radius of every attack.  [default: the run's own; without --against the bundle's]",
)
@limit_options
@verify_options(
    MODES,
    default_limit="all; blocks of 500, 500, 1000, 2000, ... are drawn until the verdict is decided",
    with_run=True,
)
@click.option("--data-dir", help="Folder of the run's images, if they were moved.")
@click.option(
    "--merge",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Add the verdict that `robust-edge-device verify -o FILE` wrote on a device with the same artifact.",
)
@ALLOW_CODE
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
    run: Path | None,
    modes: tuple[str, ...],
    limit: int | None,
    eps: float | None,
    seed: int,
    budget: Budget,
    threads: int,
    data_dir: str | None,
    merge: tuple[Path, ...],
    out: Path | None,
    junit: Path | None,
    allow_code: bool,
    output: Output,
    **options: int | None,
) -> None:
    """Attack the exported file, and compare it with its checkpoint.

    Exit 0: passed; 1: failed; 3: no backend; 4: damaged bundle; 5: undecided.
    """
    from robust_edge.verification.merge import merged, read_verdict, refuse_other_artifacts
    from robust_edge_runtimes.core.bundle import private_bundle
    from robust_edge_runtimes.core.links import without_links

    settings = VerifySettings(
        modes=modes, limit=limit, eps=eps, seed=seed, data_dir=data_dir, options=without_none(options)
    )
    others = {str(path): read_verdict(path) for path in merge}
    run = None if run is None else without_links(run)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(private_bundle(bundle))
        refuse_other_artifacts(others, opened.manifest)
        background = stack.enter_context(_background(opened.path, bundle, run, modes, data_dir, allow_code))
        from robust_edge.run.directory import open_run
        from robust_edge.verification.verify import verify_bundle

        original = None if run is None else open_run(run, allow_code=allow_code)
        verdict = verify_bundle(
            opened,
            original,
            budget,
            settings,
            threads=threads,
            progress=output.progress,
            note=output.note,
            background=background,
        )
    for warning in () if original is None else original.checkpoint().warnings:
        output.note(f"note: {warning}")
    end_with(merged(verdict, others, budget), context, output, out=out, junit=junit)


def _background(
    bundle: Path, original: Path, run: Path | None, modes: tuple[str, ...], data_dir: str | None, allow_code: bool
) -> BackgroundRebuild | contextlib.nullcontext[None]:
    """Start the comparison of mode `rebuild` in the background, if the mode will run and a second CPU is free."""
    chosen = [mode.name for mode in chosen_modes(modes, MODES, with_run=run is not None)]
    if run is None or chosen == ["rebuild"] or "rebuild" not in chosen or not second_cpu():
        return contextlib.nullcontext()
    return BackgroundRebuild(bundle, run, data_dir, allow_code=allow_code, original=original)
