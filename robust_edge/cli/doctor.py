"""`robust-edge doctor`."""

from __future__ import annotations

import click

from robust_edge_runtimes.cli.console import Output, examples, output_options


@click.command()
@output_options
@examples("robust-edge doctor", "robust-edge doctor --json")
def doctor(output: Output) -> None:
    """What this machine can run, and what would bring the rest."""
    from robust_edge_runtimes.present.doctor import diagnose, diagnosis_table

    found = diagnose()
    output.result(diagnosis_table(found), found)
