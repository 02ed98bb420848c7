"""`robust-edge bench`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH
from robust_edge_runtimes.cli.console import OUTPUT_FILE, Output, examples, output_options


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@click.option("--images", default=100, show_default=True, type=click.IntRange(min=1), help="n of the n-image protocol.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads.")
@click.option("--seconds", default=1.0, show_default=True, help="Least time per bundle and protocol.")
@click.option("--max-p90-ms", type=float, help="Latency budget: exit 1 if p90 of one image is above it.")
@click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the result, every sample included, to this JSON file.")
@output_options
@examples(
    "robust-edge bench bundles/dense bundles/digits-10",
    "robust-edge bench bundles/digits-10 --threads 2 -o bench.json",
    "robust-edge bench bundles/digits-10 --max-p90-ms 5",
)
@click.pass_context
def bench(
    context: click.Context,
    bundles: tuple[Path, ...],
    images: int,
    threads: int,
    seconds: float,
    max_p90_ms: float | None,
    out: Path | None,
    output: Output,
) -> None:
    """Time bundles in turn, one image in memory and n with loading, against a dense baseline.

    The baseline is the first dense bundle given; without one, the first bundle with all its zeros filled. A latency
    budget binds every bundle that is named here.
    """
    import dataclasses

    from robust_edge_exporters.dense_baseline import with_dense_baseline
    from robust_edge_runtimes.bench import latency
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.tables import bench_table

    given = latency.contenders(bundles)
    with with_dense_baseline(given) as (contenders, baseline):
        result = latency.bench(
            contenders,
            baseline=baseline,
            images=images,
            threads=threads,
            seconds=seconds,
            max_p90_ms=max_p90_ms,
            progress=output.progress("timing"),
        )
    if out is not None:
        write_json(out, dataclasses.asdict(result))
    output.result(bench_table(result), result)
    context.exit(0 if result.passed else 1)
