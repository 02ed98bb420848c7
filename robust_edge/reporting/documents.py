"""Tables as Markdown and as CSV files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.reporting.collect import clean_text
from robust_edge.reporting.robustness import Cell, Table
from robust_edge_runtimes.present.tables import percent

FORMULA = ("=", "+", "-", "@")


def documents(tables: Sequence[Table], page: Path) -> dict[Path, str]:
    """The documents next to a report and their texts: PAGE.md with all tables, and PAGE-KEY.csv for each table."""
    texts = {page.with_suffix(".md"): clean_text("\n".join(markdown(table) for table in tables))}
    for table in tables:
        name = re.sub(r"[^\w.-]+", "_", f"{page.stem}-{table.key}")
        texts[page.with_name(f"{name}.csv")] = clean_text(comma_separated(table))
    return texts


def markdown(table: Table) -> str:
    """A heading, the table with every accuracy's 95% interval, and the notes."""
    lines = [f"### {_escaped(table.title)}", ""]
    lines.append("| " + " | ".join(_escaped(name) for name in table.header) + " |")
    lines.append("|---" * len(table.header) + "|")
    lines += ["| " + " | ".join(_escaped(text_of(cell)) for cell in row) + " |" for row in table.rows]
    if any(isinstance(cell, Accuracy) for row in table.rows for cell in row):
        lines += ["", "Accuracies with their 95% Wilson intervals."]
    lines += [*(f"\n{_escaped(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def comma_separated(table: Table) -> str:
    """The table as CSV (RFC 4180). An accuracy has four columns: value, low, high (fractions) and images."""
    wide = [any(isinstance(row[i], Accuracy) for row in table.rows) for i in range(len(table.header))]
    header: list[str] = []
    for name, is_wide in zip(table.header, wide, strict=True):
        header += [name, f"{name} low", f"{name} high", f"{name} images"] if is_wide else [name]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([without_formula(name) for name in header])
    for row in table.rows:
        values: list[str] = []
        for cell, is_wide in zip(row, wide, strict=True):
            values += _columns(cell) if is_wide else [text_of(cell, nothing="")]
        writer.writerow([without_formula(value) for value in values])
    return buffer.getvalue()


def text_of(cell: Cell, nothing: str = "–") -> str:
    """A cell as text."""
    if isinstance(cell, Accuracy):
        return f"{percent(cell.value)} ({cell.interval})"
    return nothing if cell is None else cell


def _columns(cell: Cell) -> list[str]:
    if isinstance(cell, Accuracy):
        return [f"{cell.value:.6f}", f"{cell.low:.6f}", f"{cell.high:.6f}", str(cell.images)]
    return [cell or "", "", "", ""]


def without_formula(text: str) -> str:
    """Quote text that a spreadsheet would execute as a formula, such as a run name that begins with `=`."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
