from __future__ import annotations

import os

import click
import pytest
from click.testing import CliRunner

from robust_edge_runtimes.cli.options import OUTPUT_FILE, examples
from robust_edge_runtimes.cli.verify import verify


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


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))  # root may write everywhere
    with pytest.raises(click.BadParameter, match="cannot be written to"):
        OUTPUT_FILE.convert(str(tmp_path / "verify.json"), None, None)


def test_a_history_that_cannot_be_continued_is_refused_before_the_bundle_is_read(tmp_path):
    (tmp_path / "verify.json.history").mkdir()
    result = CliRunner().invoke(verify, [str(tmp_path / "no-bundle"), "-o", str(tmp_path / "verify.json")])
    assert result.exit_code == 2
    assert "verify.json.history', the history of -o, cannot be written to" in result.output
