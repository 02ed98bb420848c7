"""`robust-edge evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH, SEED, Radius
from robust_edge_runtimes.console import OUTPUT_FILE, Output, examples, output_options


@click.command()
@click.argument("run", type=PATH)
@click.option("--attack", type=click.Choice(["pgd", "curve"]), default="pgd", show_default=True, help="What to run.")
@click.option("--eps", type=Radius(), help="Radius for pgd.  [default: the run's own, 8/255 for a benign run]")
@click.option("--steps", type=click.IntRange(min=1), help="Gradient steps.  [default: 50 for pgd, 100 for curve]")
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first N test images.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random start.")
@click.option("--data-dir", help="Where the run's images lie now, if elsewhere.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 or auto.")
@click.option("-o", "--out", type=OUTPUT_FILE, help="JSON file to write.  [default: RUN/evaluations/ATTACK.json]")
@output_options
@examples(
    "robust-edge evaluate runs/digits-10 --eps 0.1 --steps 50",
    "robust-edge evaluate runs/digits-10 --attack curve --limit 200",
)
def evaluate(
    run: Path,
    attack: str,
    eps: float | None,
    steps: int | None,
    limit: int | None,
    seed: int,
    data_dir: str | None,
    device: str,
    out: Path | None,
    output: Output,
) -> None:
    """Accuracy of a checkpoint, clean and under attack; `curve` is accuracy against rising eps (Algorithm 2)."""
    from robust_edge.evaluation.evaluate import EvaluateSettings, evaluate_run, evaluation_table
    from robust_edge.reporting.collect import collect_runs
    from robust_edge.reporting.plots import write_plots
    from robust_edge.run import open_run

    settings = EvaluateSettings(
        attack=attack, eps=eps, steps=steps, limit=limit, seed=seed, data_dir=data_dir, device=device
    )
    opened = open_run(run)
    record = evaluate_run(opened, settings, out, progress=output.progress(attack))
    write_plots(collect_runs([opened])[0])
    output.result(evaluation_table(record), record)
