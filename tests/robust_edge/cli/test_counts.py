"""Every option that counts something refuses what no machine can hold, before any work."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from robust_edge.cli import main
from robust_edge_runtimes.cli.main import main as device

COUNTS = [
    (group, name, max(option.opts, key=len))
    for group in (main, device)
    for name, command in ((name, group.get_command(None, name)) for name in group.list_commands(None))
    for option in command.params
    if isinstance(option, click.Option) and isinstance(option.type, (click.IntRange, click.types.IntParamType))
]


@pytest.mark.parametrize(("group", "command", "option"), COUNTS, ids=lambda value: str(getattr(value, "name", value)))
@pytest.mark.parametrize("value", ["9999999999999999999", "-1", "1e9"])
def test_absurd_counts_are_refused(group, command, option, value):
    result = CliRunner().invoke(group, [command, option, value])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert f"Invalid value for '{option}'" in result.stderr or f"'{option}'" in result.stderr


def test_there_are_such_options():
    assert {option for _, _, option in COUNTS} > {"--images", "--threads", "--jobs", "--golden", "--limit", "--steps"}
