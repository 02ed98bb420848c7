"""Whether this machine can run each artifact format, found by trying its backend."""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

from robust_edge_runtimes.formats.table import FORMATS, format_named


@dataclasses.dataclass(frozen=True)
class Backend:
    """The backend of one artifact format on this machine.

    Attributes:
        format: its name.
        bundles: short description of the format.
        runs_on: the backend that executes it, with versions; None if none is available.
        missing: why no backend is available; None if one is.
        remedy: the command that installs the backend.
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
    except Exception as cause:  # a broken installation may raise any exception
        reason = " ".join(str(cause).split()) or type(cause).__name__
        return Backend(name, row.description, None, reason, row.remedy)
