"""The tables of the docs that list rows of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from robust_edge.attacks.table import ATTACKS, OWN
from robust_edge.verification.modes.table import MODES
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.flags import EVALUATE, VALIDITY_FLAGS, VERIFY

DOCS = Path(__file__).parents[2] / "docs"


def table(name: str, header: str) -> list[str]:
    """The lines below a table's header."""
    below = (DOCS / name).read_text("utf-8").split(header + "\n")[1].splitlines()[1:]
    return below[: below.index("")]


@pytest.mark.parametrize(("name", "command"), [("verification.md", VERIFY), ("evaluation.md", EVALUATE)])
def test_the_flags_are_those_of_the_table(name: str, command: str) -> None:
    rows = [f"| `{flag.name}` | {flag.meaning} |" for flag in VALIDITY_FLAGS if command in flag.raised_by]
    assert table(name, "| flag | raised when |") == rows


def test_the_modes_are_those_of_the_table() -> None:
    rows = [
        f"| `{mode.name}` | {mode.help} | {mode.needs or '–'} | {mode.default.value} | "
        f"{'yes' if mode in DEVICE_MODES else 'no'} |"
        for mode in MODES
    ]
    assert table("verification.md", "| mode | attack | needs, beside the bundle | by default | on the device |") == rows


def test_the_attacks_are_those_of_the_table() -> None:
    rows = table("evaluation.md", "| `--attack` | what it is | settings | norms |")
    assert [row.split("`")[1] for row in rows] == [*ATTACKS, OWN]
