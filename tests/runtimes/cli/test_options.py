from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from robust_edge_runtimes.cli.main import main
from robust_edge_runtimes.cli.options import BUNDLE, OUTPUT_FILE, OutputFile, Utf8Path, examples
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


def test_a_link_is_followed_and_not_replaced(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "report.html").symlink_to("site/index.html")
    assert OUTPUT_FILE.convert(str(tmp_path / "report.html"), None, None) == tmp_path / "site" / "index.html"
    (tmp_path / "lost.html").symlink_to("nowhere/index.html")
    with pytest.raises(click.BadParameter, match="nowhere' does not exist"):
        OUTPUT_FILE.convert(str(tmp_path / "lost.html"), None, None)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/nothing", "/sys/nothing"])
def test_what_stands_for_an_open_file_is_not_replaced(name, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # as where stdout is redirected to a file
    with pytest.raises(click.BadParameter, match="is not a regular file and would be replaced by one"):
        OUTPUT_FILE.convert(name, None, None)


def test_a_history_that_cannot_be_continued_is_refused_before_the_bundle_is_read(tmp_path):
    (tmp_path / "verify.json.history").mkdir()
    result = CliRunner().invoke(verify, [str(tmp_path / "no-bundle"), "-o", str(tmp_path / "verify.json")])
    assert result.exit_code == 2
    assert "verify.json.history', the history of -o, cannot be written to" in result.output


@pytest.mark.parametrize("name", [b"\xff", b"a/\xc3(b"])
def test_a_path_that_is_not_utf8_is_refused(name):
    with pytest.raises(click.BadParameter, match="is not UTF-8"):
        BUNDLE.convert(os.fsdecode(name), None, None)


@pytest.mark.parametrize("name", ["a b", "two\nlines", "ä", "-", "%s {0}"])
def test_every_other_path_is_taken_as_it_is(name):
    assert str(BUNDLE.convert(name, None, None)) == name


def test_a_bundle_in_a_folder_with_an_odd_name(bundle):
    renamed = bundle.rename(bundle.with_name("a b\n\x1b[2Jä"))
    result = CliRunner().invoke(main, ["verify", str(renamed), "-q"])
    assert result.exit_code == 5, result.stderr
    assert result.stderr == ""
    (renamed / "model.onnx").write_bytes(b"")
    result = CliRunner().invoke(main, ["verify", str(renamed), "-q"])
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_every_command_refuses_paths_that_are_not_utf8():
    groups = [main]
    with contextlib.suppress(ImportError):  # on a device
        groups.append(importlib.import_module("robust_edge.cli").main)
    paths = [
        (name, param)
        for group in groups
        for name, command in group.commands.items()
        for param in command.params
        if isinstance(param.type, click.Path)
    ]
    assert len(paths) > 5
    others = [(name, param.name) for name, param in paths if not isinstance(param.type, (Utf8Path, OutputFile))]
    assert others == [("predict", "images")], "which Python itself opens"
