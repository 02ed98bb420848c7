"""`robust-edge-device verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import click

from robust_edge_runtimes.cli.options import BUNDLE, OUTPUT_FILE, THREADS, examples, mode_options, refuse_same_file
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.modes.mode import chosen_modes, mode_help
from robust_edge_runtimes.modes.settings import ModeSettings, given
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.measurement import Budget


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice([mode.name for mode in DEVICE_MODES]),
    help=mode_help(DEVICE_MODES),
)
@click.option("--limit", type=click.IntRange(min=1), help="Most images per mode.  [default: all stored images]")
@mode_options(DEVICE_MODES)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
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
@THREADS
@click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the verdict to this JSON file.")
@click.option("--junit", type=OUTPUT_FILE, help="Also write the verdict as JUnit XML, for continuous integration.")
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
    seed: Optional[int],
    max_clean_drop: float,
    max_robust_drop: float,
    allow: Tuple[str, ...],
    threads: int,
    out: Optional[Path],
    junit: Optional[Path],
    output: Output,
    **options: Optional[int],
) -> None:
    """Attack the artifact on this device. Exit 0: passed; 1: failed; 4: damaged bundle; 5: too few images to decide."""
    import dataclasses
    import secrets

    from robust_edge_runtimes.core.bundle import open_bundle
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.load import load
    from robust_edge_runtimes.modes.sequence import judge_in_blocks
    from robust_edge_runtimes.present.junit import write_junit
    from robust_edge_runtimes.present.verdict import verdict_table
    from robust_edge_runtimes.verdict.history import add_to_history, with_history
    from robust_edge_runtimes.verdict.judge import EXIT_CODES
    from robust_edge_runtimes.verdict.subject import subject_of

    refuse_same_file(out, junit)
    seed = secrets.randbits(32) if seed is None else seed
    budget, settings = Budget(max_clean_drop, max_robust_drop, allow), ModeSettings(limit, seed, given(options))
    opened = open_bundle(bundle)
    with load(opened, threads=threads, from_source=True) as model:
        subject = subject_of(opened, model, limit=limit, seed=seed)
        chosen = chosen_modes(modes, DEVICE_MODES)
        verdict = judge_in_blocks(subject, chosen, settings, budget, output.progress)
    if out is not None:
        verdict = with_history(verdict, out)
        write_json(out, dataclasses.asdict(verdict))
        add_to_history(verdict, out)
    if junit is not None:
        write_junit(junit, verdict)
    output.result(verdict_table(verdict), verdict)
    context.exit(EXIT_CODES[verdict.outcome])
