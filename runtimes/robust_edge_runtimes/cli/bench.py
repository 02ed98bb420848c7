"""`robust-edge-device bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import click

from robust_edge_runtimes.cli.options import BUNDLE, COUNT, OUTPUT_FILE, THREADS, examples, lock_outputs
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options


def timing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of both `bench` commands: how long to measure, the latency budget, where to write."""
    for option in (
        click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the result with all samples to this JSON file."),
        click.option("--max-p90-ms", type=float, help="Latency budget: exit 1 if the p90 of one image is above it."),
        click.option(
            "--seconds", default=1.0, show_default=True, help="Shortest time to measure each bundle and protocol."
        ),
        THREADS,
        click.option(
            "--images",
            default=100,
            show_default=True,
            type=COUNT,
            help="Number of images in the n-image protocol.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=BUNDLE)
@timing_options
@limit_options
@output_options
@click.pass_context
@examples(
    "robust-edge-device bench dense/ sparse/",
    "robust-edge-device bench bundle/ --images 100 -o bench.json",
    "robust-edge-device bench bundle/ --max-p90-ms 5",
)
def bench(
    context: click.Context,
    bundles: Tuple[Path, ...],
    images: int,
    threads: int,
    seconds: float,
    max_p90_ms: Optional[float],
    out: Optional[Path],
    output: Output,
) -> None:
    """Time bundles, interleaved; the first one is the baseline of the speed-up."""
    import dataclasses

    from robust_edge_runtimes.bench import latency
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.bench import bench_table

    lock_outputs(out)
    contenders = latency.contenders(bundles)
    if all(contender.bundle.manifest.sparsity.keep < 1 for contender in contenders):
        output.note("note: no bundle is dense, so the speed-up does not show the effect of sparsity; add a dense one")
    result = latency.bench(
        contenders,
        images=images,
        threads=threads,
        seconds=seconds,
        max_p90_ms=max_p90_ms,
        progress=output.progress("timing"),
    )
    text = bench_table(result)
    with output.kept(text, result):
        if out is not None:
            write_json(out, dataclasses.asdict(result))
    output.verdict(text, result, context, 0 if result.passed else 1)
