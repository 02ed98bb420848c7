"""The files, tables and tests that the docs name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robust_edge_runtimes.verdict.flags import FLAGS

ROOT = Path(__file__).parents[2]
EXPORTERS, RUNTIMES = "exporters/robust_edge_exporters", "runtimes/robust_edge_runtimes"
PREFIXES = (
    ".",
    "exporters",
    "runtimes",
    EXPORTERS,
    RUNTIMES,
    "robust_edge",
    "robust_edge/verification",
    f"{EXPORTERS}/templates",
)


def named(page: str) -> list[str]:
    """Every path in backquotes that ends in a file's extension or a slash; NAME and * stand for any name."""
    text = (ROOT / page).read_text()
    return sorted(set(re.findall(r"`([\w./*-]+(?:\.(?:py|toml|h|md)|/))`", text)))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_paths_that_a_page_names_exist(page: str) -> None:
    paths = named(page)
    assert len(paths) > 5
    for path in paths:
        pattern = path.replace("NAME", "*").rstrip("/")
        assert any(list((ROOT / prefix).glob(pattern)) for prefix in PREFIXES), f"{page} names {path}"


def test_the_tampered_kinds_name_tests_and_flags() -> None:
    page = (ROOT / "docs/verification-tampered.md").read_text()
    rows = re.findall(r"^\| .* \| (.*) \| `(test_\w+)` \|$", page, re.MULTILINE)
    folders = [ROOT / f"tests/{name}" for name in ("attacks", "exporters/formats", "robust_edge/verification")]
    files = [file for folder in folders for file in folder.rglob("test_*.py")]
    tests = "".join(file.read_text() for file in files)
    assert len(rows) > 20
    for caught_by, test in rows:
        assert f"def {test}(" in tests
        named_flags = set(re.findall(r"`(\w+)`", caught_by)) - {test}
        assert named_flags <= set(FLAGS), caught_by


@pytest.mark.parametrize("table", ["SCHEMES", "ATTACKS", "DATASETS", "OPERATORS", "MODULES"])
def test_the_tables_are_where_contributing_says(table: str) -> None:
    text = re.sub(r"\s+", " ", (ROOT / "CONTRIBUTING.md").read_text())
    found = re.search(rf"A row in `{table}` of `([\w./]+)`", text)
    assert found is not None
    files = [ROOT / prefix / found[1] for prefix in PREFIXES]
    assert any(f"\n{table}" in file.read_text() for file in files if file.is_file())
