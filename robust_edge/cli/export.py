"""`robust-edge export`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH, SEED, Radius
from robust_edge_runtimes.console import Output, examples, output_options


@click.command()
@click.argument("run", type=PATH)
@click.option("--target", required=True, help="A name from `robust-edge targets`.")
@click.option("--golden", default=512, show_default=True, type=click.IntRange(min=1), help="Test images to store.")
@click.option("--eps", type=Radius(), help="Radius of the stored attack.  [default: the run's own]")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(min=1), help="Steps of the stored attack.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the stored attack.")
@click.option("--data-dir", help="Where the run's images lie now, if elsewhere.")
@click.option("--overwrite", is_flag=True, help="Replace an older bundle in -o.")
@click.option("-o", "--out", required=True, type=PATH, help="The bundle to write.")
@output_options
@examples("robust-edge export runs/digits-10 --target x86-cpu -o bundles/digits-10")
def export(
    run: Path,
    target: str,
    golden: int,
    eps: float | None,
    steps: int,
    seed: int,
    data_dir: str | None,
    overwrite: bool,
    out: Path,
    output: Output,
) -> None:
    """Write a bundle that a device can use; it appears only once it computes what the checkpoint computes."""
    import dataclasses

    from robust_edge.deployment import GoldenSettings, export_run
    from robust_edge.run import open_run
    from robust_edge_exporters.target import target_named

    chosen = target_named(target)
    settings = GoldenSettings(images=golden, eps=eps, steps=steps, seed=seed)
    exported = export_run(open_run(run), chosen, out, golden=settings, data_dir=data_dir, overwrite=overwrite)
    artifact, counts = exported.manifest.artifact, exported.manifest.sparsity
    text = (
        f"{out}: {artifact.file} for {chosen.name}, {artifact.bytes / 1e3:.0f} kB, {counts.nonzero} of "
        f"{counts.weights} prunable weights non-zero ({100 * counts.keep:.2f}%), logits within "
        f"{exported.parity.max_logit_error:.1g} of the checkpoint"
    )
    for limit in chosen.limits:
        output.note(f"note: {limit}")
    output.result(text, {**dataclasses.asdict(exported), "manifest": exported.manifest.to_json()})
