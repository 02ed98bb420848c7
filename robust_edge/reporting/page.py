"""One self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_edge.run import Run


def write_report(runs: Sequence[Run], verdicts: Sequence[Path], benches: Sequence[Path], out: Path) -> None:
    """Write the page."""
    del runs, verdicts, benches
    out.write_text("<html></html>")
