"""`robust-edge doctor`."""

from __future__ import annotations

import click

from robust_edge_runtimes.cli.options import examples
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@output_options
@examples("robust-edge doctor", "robust-edge doctor --json")
def doctor(output: Output) -> None:
    """Show what this machine can run, and how to install what is missing."""
    from robust_edge.verification.modes.table import MODES
    from robust_edge_runtimes.diagnosis import diagnose
    from robust_edge_runtimes.modes.table import DEVICE_MODES
    from robust_edge_runtimes.present.doctor import diagnosis_table

    found = diagnose([mode.name for mode in MODES if mode not in DEVICE_MODES])
    output.result(diagnosis_table(found), found)
