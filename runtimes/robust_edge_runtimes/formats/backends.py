"""Whether each artifact format would run on this machine, tried instead of guessed from what is installed."""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

from robust_edge_runtimes.formats.table import FORMATS, format_named


@dataclasses.dataclass(frozen=True)
class Backend:
    """What executes one artifact format.

    Attributes:
        format: its name.
        bundles: what bundles of this format hold.
        runs_on: what executes it here, with versions; None if nothing does.
        missing: why not; None if it runs.
        remedy: the command that would change that.
    """

    format: str
    bundles: str
    runs_on: Optional[str]
    missing: Optional[str]
    remedy: Optional[str]


def backends() -> Tuple[Backend, ...]:
    """Probe every row of the table of formats."""
    return tuple(_probed(name) for name in FORMATS)


def _probed(name: str) -> Backend:
    row = format_named(name)
    try:
        return Backend(name, row.description, row.probe(), None, None)
    except Exception as cause:  # a broken installation may raise anything, and then the format does not run
        reason = " ".join(str(cause).split()) or type(cause).__name__
        return Backend(name, row.description, None, reason, row.remedy)
