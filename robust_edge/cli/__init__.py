"""`robust-edge`: one file per command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from robust_edge.cli.bench import bench
from robust_edge.cli.check import check
from robust_edge.cli.compress import compress
from robust_edge.cli.demo import demo
from robust_edge.cli.doctor import doctor
from robust_edge.cli.evaluate import evaluate
from robust_edge.cli.export import export
from robust_edge.cli.import_ import import_
from robust_edge.cli.report import report
from robust_edge.cli.sweep import sweep
from robust_edge.cli.targets import targets
from robust_edge.cli.transfer import transfer
from robust_edge.cli.verify import verify
from robust_edge_runtimes.cli.command_line import CommandLine
from robust_edge_runtimes.core.version import __version__


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="robust-edge")
def main() -> None:
    """Train, export and verify small CNNs that are sparse and robust against adversarial examples.

    import or compress -> export -> verify -> bench -> report; `robust-edge demo` runs the whole way on a built-in data
    set.
    """


for command in (
    demo,
    import_,
    check,
    compress,
    evaluate,
    transfer,
    export,
    verify,
    bench,
    sweep,
    report,
    targets,
    doctor,
):
    main.add_command(command)
