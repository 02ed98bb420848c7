"""Paths without symbolic links."""

from __future__ import annotations

import os
from pathlib import Path

from robust_edge_runtimes.core.errors import InputError


def resolved(path: Path) -> Path:
    """The absolute path without symbolic links; it need not exist.

    Raises:
        InputError: a link leads back to itself, on which `Path.resolve` fails or not by the version of Python.
    """
    real = Path(os.path.realpath(str(path)))
    if any(map(os.path.islink, (real, *real.parents))):
        raise InputError(f"{path} cannot be used, since its symbolic links form a loop; choose another path")
    return real


def without_links(path: Path) -> Path:
    """The same folder by a path without symbolic links, which could lead elsewhere later; else `path` itself."""
    real = Path(os.path.realpath(path))
    return path if real == Path(os.path.abspath(path)) else real  # noqa: PTH100 - resolve() would follow them
