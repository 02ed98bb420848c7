from __future__ import annotations

import dataclasses
import json

import click
import pytest
from click.testing import CliRunner

from robust_edge_runtimes.cli.output import output_options


@dataclasses.dataclass(frozen=True)
class Answer:
    number: int
    parts: tuple


def through_options(action, *arguments):
    @click.command()
    @output_options
    def go(output):
        action(output)

    return CliRunner().invoke(go, list(arguments))


@pytest.mark.parametrize("value", [Answer(3, (1, 2)), {"number": 3, "parts": [1, 2]}])
def test_json_replaces_the_text_on_stdout(value):
    plain = through_options(lambda output: output.result("three", value))
    assert plain.stdout == "three\n"
    as_json = through_options(lambda output: output.result("three", value), "--json")
    assert json.loads(as_json.stdout) == {"number": 3, "parts": [1, 2]}


def test_quiet_and_verbose_move_notes_to_and_from_stderr():
    def action(output):
        output.note("note")
        output.detail("detail")
        output.progress("step")(1, 1)
        output.result("result", {})

    for arguments, words in (([], ["note", "step"]), (["-v"], ["note", "detail", "step"]), (["-q"], [])):
        result = through_options(action, *arguments)
        assert result.stdout == "result\n"
        assert [line.split()[0] for line in result.stderr.splitlines()] == words
