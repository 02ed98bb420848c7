"""`robust-edge demo`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH, SEED
from robust_edge_runtimes.cli.options import examples, lock_outputs
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@click.option("--out", default=Path("demo-out"), show_default=True, type=PATH, help="Folder to create.")
@click.option("--overwrite", is_flag=True, help="Replace an older demo in --out.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of training and attacks.")
@output_options
@click.pass_context
@examples("robust-edge demo", "robust-edge demo --out /tmp/demo --overwrite")
def demo(context: click.Context, out: Path, overwrite: bool, seed: int, output: Output) -> None:
    """Run the whole pipeline on a built-in data set: train three networks, attack, export, verify, time and report."""
    from robust_edge.demo import run_demo, summary_table

    lock_outputs(out)
    summary = run_demo(out, overwrite=overwrite, seed=seed, output=output)
    output.verdict(summary_table(summary), summary, context, 0 if summary.verdict_passed else 1)
