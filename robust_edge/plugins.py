"""Tables of functions and classes that are chosen by name, and the user's own, given as `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from robust_edge_runtimes.core.errors import InputError, unknown_name

OWN_FUNCTION = "package.module:function"
OWN_CLASS = "package.module:Class"


class Row(NamedTuple):
    """One choice of a table.

    Attributes:
        reference: where its function or class is, as `package.module:name`; imported when it is chosen.
        summary: a few words for help texts.
    """

    reference: str
    summary: str = ""


def summaries(table: Mapping[str, Row]) -> dict[str, str]:
    """Name to summary of every row."""
    return {name: row.summary for name, row in table.items()}


def load(what: str, name: str, table: Mapping[str, Row], own: str = OWN_FUNCTION) -> Any:
    """The function or class of a row, or the user's own.

    Args:
        what: kind of thing, for error messages.
        name: of a row, or `package.module:name`.
        table: of all rows.
        own: how error messages write the user's own.

    Raises:
        InputError: an unknown name, or what `import_function` raises.
    """
    if ":" in name:
        return import_function(what, name)
    if name not in table:
        raise unknown_name(what, name, [*table, own])
    module, _, attribute = table[name].reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_class(what: str, name: str, table: Mapping[str, Row], base: type) -> Any:
    """The class of a row, or the user's own; a class that holds its settings as a frozen dataclass.

    Args:
        what: kind of thing, for error messages.
        name: of a row, or `package.module:Class`.
        table: of all rows.
        base: from which the class is derived.

    Raises:
        InputError: an unknown name, a module that cannot be imported, a class of the user's that does not fit.
    """
    cls = load(what, name, table, OWN_CLASS)
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise InputError(f"{what} {name!r} must be a class derived from {base.__module__}.{base.__qualname__}")
    if "__dataclass_params__" not in vars(cls):
        raise InputError(f"{what} {name!r} must be decorated with @dataclasses.dataclass(frozen=True, kw_only=True)")
    missing = getattr(cls, "__abstractmethods__", ())
    if missing:
        raise InputError(f"{what} {name!r} does not define {', '.join(sorted(missing))}")
    return cls


def import_function(what: str, reference: str) -> Any:
    """Import a function or a class by name; the working directory is searched too.

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
