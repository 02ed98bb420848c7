"""`robust-edge-device`: one file per command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from robust_edge_runtimes.cli.bench import bench
from robust_edge_runtimes.cli.command_line import CommandLine
from robust_edge_runtimes.cli.doctor import doctor
from robust_edge_runtimes.cli.predict import predict
from robust_edge_runtimes.cli.verify import verify
from robust_edge_runtimes.core.version import __version__


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robust-edge-device")
def main() -> None:
    """Run, verify and time a bundle on the device, without a training framework."""


for command in (predict, verify, bench, doctor):
    main.add_command(command)
