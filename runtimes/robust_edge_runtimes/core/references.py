"""Things that tables name as `package.module:name`, imported only when they are chosen."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(reference: str) -> Any:
    """Import the module of `package.module:name` and return what it calls `name`.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: it has nothing of that name.
    """
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
