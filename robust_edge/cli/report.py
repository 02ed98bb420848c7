"""`robust-edge report`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH
from robust_edge_runtimes.cli.options import OUTPUT_FILE, examples
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--verify", "verdicts", multiple=True, type=PATH, help="A verdict that `verify -o` wrote; repeatable.")
@click.option("--bench", "benches", multiple=True, type=PATH, help="A result that `bench -o` wrote; repeatable.")
@click.option("--transfer", "transfers", multiple=True, type=PATH, help="What `transfer -o` wrote; repeatable.")
@click.option("-o", "--out", default=Path("report.html"), show_default=True, type=OUTPUT_FILE, help="Page to write.")
@output_options
@examples(
    "robust-edge report runs/* -o report.html",
    "robust-edge report runs/dense runs/sparse --verify verify.json --bench bench.json",
    "robust-edge report runs/* --transfer transfer.json",
)
def report(
    runs: tuple[Path, ...],
    verdicts: tuple[Path, ...],
    benches: tuple[Path, ...],
    transfers: tuple[Path, ...],
    out: Path,
    output: Output,
) -> None:
    """One self-contained HTML page: what was compressed, how right it is, how fast it is.

    Beside it stand the robustness tables as one Markdown file and one CSV file each, all from what `evaluate` and
    `transfer` have written.
    """
    from robust_edge.reporting.page import write_report
    from robust_edge.run.directory import open_run

    written = write_report([open_run(path) for path in runs], verdicts, benches, out, transfers=transfers)
    for path in written[1:]:
        output.detail(f"wrote {path}")
    output.result(str(out), {"report": str(out), "tables": [str(path) for path in written[1:]]})
