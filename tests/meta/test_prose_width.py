"""Prose of the docs has lines of at most 120 characters, as the code has; tables and code blocks may be wider."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 120
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def too_wide(text: str) -> list[str]:
    """Lines of prose over the width; a table's rows and indented code are none."""
    lines = FENCED.sub("", text).splitlines()
    return [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "    "))]


def test_lines_of_prose_are_at_most_120_characters() -> None:
    folders = (ROOT / "docs", ROOT / "examples")
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))]
    assert len(pages) > 15
    found = {str(page.relative_to(ROOT)): too_wide(page.read_text("utf-8")) for page in pages}
    assert not {page: lines for page, lines in found.items() if lines}


def test_what_counts_as_prose() -> None:
    wide = "word " * 30
    assert too_wide(f"{wide}\n- {wide}\n| {wide} |\n    {wide}\n```sh\n{wide}\n```\n") == [wide, f"- {wide}"]
