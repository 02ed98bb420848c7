from __future__ import annotations

import click
from click.testing import CliRunner

from robust_edge_runtimes.cli.options import examples


def test_examples_stand_in_the_help_as_written():
    @click.command()
    @examples("tool go --count 3", "tool go")
    def go():
        """Do it."""

    text = CliRunner().invoke(go, ["--help"]).stdout
    assert "Examples:\n    tool go --count 3\n    tool go\n" in text


def test_a_second_paragraph_stands_in_the_help_as_the_first():
    @click.command()
    @examples("tool go")
    def go():
        """Do it.

        Twice, if
        need be.
        """

    assert "\n  Do it.\n\n  Twice, if need be.\n\n  Examples:" in CliRunner().invoke(go, ["--help"]).stdout
