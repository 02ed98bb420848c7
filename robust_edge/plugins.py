"""The user's own functions, named as `package.module:function`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from robust_edge_runtimes.core.errors import InputError


def import_function(what: str, reference: str) -> Any:
    """Import a function by name; the working directory is searched too.

    Raises:
        InputError: the module cannot be imported, or has no such function.
    """
    module, _, name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as cause:  # the module is the user's; it may raise anything
        raise InputError(f"{what} {reference!r} cannot be imported ({type(cause).__name__}: {cause})") from cause
    if not callable(found):
        raise InputError(f"{what} {reference!r} is not a function but {type(found).__name__}")
    return found
