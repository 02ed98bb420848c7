"""`robust-edge doctor`."""

from __future__ import annotations

from robust_edge_runtimes.cli import doctor

__all__ = ["doctor"]
