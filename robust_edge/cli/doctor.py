"""`robust-edge doctor`."""

from __future__ import annotations

import click

from robust_edge_runtimes.console import Output, examples, output_options


@click.command()
@output_options
@examples("robust-edge doctor", "robust-edge doctor --json")
def doctor(output: Output) -> None:
    """What this machine can run, and what would bring the rest."""
    import contextlib

    from robust_edge_runtimes.doctor import diagnose, diagnosis_table

    with contextlib.suppress(Exception):  # what cannot be imported is for the diagnosis to name
        from robust_edge.torchvision_compat import torchvision_module

        torchvision_module("models")  # as the training side imports it, which works beside a CPU-only torch
    found = diagnose()
    output.result(diagnosis_table(found), found)
