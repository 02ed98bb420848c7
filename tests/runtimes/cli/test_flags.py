from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from robust_edge_runtimes.cli.command_line import CommandLine
from robust_edge_runtimes.cli.flags import with_flags
from robust_edge_runtimes.core.errors import BundleError, InputError


@click.command()
@click.argument("bundle")
@click.option("--keep", "pruning_keep", type=float)
@click.option("--mode", "modes", multiple=True)
@click.option("-o", "--out")
@click.option("--compact/--no-compact")
def go(**_):
    """A command with one setting of the config, parameters of several kinds, and an argument."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("raise pruning.keep, or", "raise pruning.keep (--keep), or"),
        ("pruning.keep must be above 0; raise pruning.keep.", "{0} must be above 0; raise {0}."),
        ("lower pruning.floor", "lower pruning.floor"),  # no option
        ("give other `modes`, or leave `out` out", "give other --mode, or leave --out out"),
        ("switch `compact` off", "switch --compact off"),
        ("no `bundle`, no `limit`", "no `bundle`, no `limit`"),  # an argument; no parameter at all
        ("modes and out are words", "modes and out are words"),
        ("`verify -o` and `x.pruning.keep`", "`verify -o` and `x.pruning.keep`"),
        ("runs/pruning.keep, pruning.keep/x, pruning.keep=0.1", "runs/pruning.keep, pruning.keep/x, pruning.keep=0.1"),
    ],
)
def test_names_in_an_error_get_the_options_of_the_command(text, shown):
    assert with_flags(text, go) == shown.format("pruning.keep (--keep)")


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (BundleError, 4)])
def test_the_command_line_prints_the_options_of_the_command_that_ran(error, code):
    @click.group(cls=CommandLine)
    def main():
        pass

    @main.command()
    @click.option("--keep", "pruning_keep", type=float)
    def first(**_):
        raise error("pruning.keep and `limit` do not fit")

    @main.command()
    @click.option("--most", "limit", type=int)
    def second(**_):
        raise error("pruning.keep and `limit` do not fit")

    for command, shown in (
        ("first", "pruning.keep (--keep) and `limit` do not fit"),
        ("second", "pruning.keep and --most do not fit"),
    ):
        done = CliRunner().invoke(main, [command])
        assert (done.exit_code, done.stderr) == (code, f"error: {shown}\n")
