"""Aligned text tables for a terminal."""

from __future__ import annotations

from typing import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Align rows under a header.

    Args:
        header: one title per column.
        rows: one cell per column.
        words: number of leading columns that hold words and are aligned left; the others are aligned right.
    """
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        placed = list(zip(row, widths))
        cells = [cell.ljust(width) for cell, width in placed[:words]]
        cells += [cell.rjust(width) for cell, width in placed[words:]]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return f"{100 * fraction:.{digits}f}%"
