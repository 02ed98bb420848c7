"""`robust-edge report`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import ALLOW_CODE, PATH
from robust_edge_runtimes.cli.options import OUTPUT_FILE, examples
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--verify", "verdicts", multiple=True, type=PATH, help="JSON file of `verify -o`; repeatable.")
@click.option("--bench", "benches", multiple=True, type=PATH, help="JSON file of `bench -o`; repeatable.")
@click.option("--transfer", "transfers", multiple=True, type=PATH, help="JSON file of `transfer -o`; repeatable.")
@click.option(
    "-o", "--out", default=Path("report.html"), show_default=True, type=OUTPUT_FILE, help="HTML page to write."
)
@click.option(
    "--watch", is_flag=True, help="Write the page again after each epoch, until all runs are finished or Ctrl-C."
)
@ALLOW_CODE
@output_options
@examples(
    "robust-edge report runs/* -o report.html",
    "robust-edge report runs/dense runs/sparse --verify verify.json --bench bench.json",
    "robust-edge report runs/* --transfer transfer.json",
    "robust-edge report --watch runs/digits-10",
)
def report(
    runs: tuple[Path, ...],
    verdicts: tuple[Path, ...],
    benches: tuple[Path, ...],
    transfers: tuple[Path, ...],
    out: Path,
    watch: bool,
    allow_code: bool,
    output: Output,
) -> None:
    """Write one self-contained HTML page about compression, accuracy and speed.

    The robustness tables of `evaluate` and `transfer` are also written next to it, as one Markdown file and as one CSV
    file each, and the figures of every run into its folder, RUN/plots. With --watch the page is renewed while runs are
    trained, and a browser that shows it reads it again.
    """
    from robust_edge.reporting.page import write_report
    from robust_edge.reporting.watch import SECONDS
    from robust_edge.reporting.watch import watch as watch_runs
    from robust_edge.run.directory import open_run

    opened = [open_run(path, allow_code=allow_code) for path in runs]
    written: list[Path] = []

    def write(training: bool) -> None:
        written[:] = write_report(opened, verdicts, benches, out, transfers=transfers, reload=SECONDS * training)
        if training:
            done = ", ".join(f"{run.name} {len(run.metrics())}/{run.config.training.epochs} epochs" for run in opened)
            output.note(f"wrote {out}: {done}")

    def quiet(seconds: float) -> None:
        output.note(
            f"no epoch has ended for {seconds / 60:.0f} minutes; was the training killed? Ctrl-C ends this command"
        )

    if watch:
        if not all(run.finished for run in opened):
            output.note("watching until all runs are finished; Ctrl-C ends this command earlier")
        watch_runs(opened, write, quiet=quiet)
    else:
        write(False)
    for path in written[1:]:
        output.detail(f"wrote {path}")
    output.result(str(out), {"report": str(out), "tables": [str(path) for path in written[1:]]})
