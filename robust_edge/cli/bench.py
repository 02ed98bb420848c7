"""`robust-edge bench`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH
from robust_edge_runtimes.cli.bench import timing_options
from robust_edge_runtimes.cli.options import examples
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@timing_options
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
    """Time bundles, interleaved with a dense baseline: one image in memory, and n images including reading them.

    The baseline is the first dense bundle that is given; if there is none, a dense copy of the first bundle. The
    latency budget applies to every bundle that is given.
    """
    import dataclasses

    from robust_edge_exporters.dense_baseline import with_dense_baseline
    from robust_edge_runtimes.bench import latency
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.bench import bench_table

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
