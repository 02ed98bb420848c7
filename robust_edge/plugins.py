"""Tables of functions and classes that are chosen by name; the user's own code is given as `package.module:name`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from robust_edge.settings.setting import Setting
from robust_edge_runtimes.core.errors import InputError, unknown_name
from robust_edge_runtimes.core.references import resolve

OWN_FUNCTION = "package.module:function"
OWN_CLASS = "package.module:Class"


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        reference: where its function or class is, as `package.module:name`; imported when it is chosen.
        summary: a few words for help texts.
        options: the class's own settings that have a command-line option, by name, with type and declaration. They
            are repeated here because the command line must not import the class, which imports torch.
    """

    reference: str
    summary: str = ""
    options: Mapping[str, tuple[str, Setting]] = MappingProxyType({})


def summaries(table: Mapping[str, Row]) -> dict[str, str]:
    """The summaries of all rows by name."""
    return {name: row.summary for name, row in table.items()}


def load(what: str, name: str, table: Mapping[str, Row], own: str = OWN_FUNCTION) -> Any:
    """Import the function or class of a row, or the user's own.

    Args:
        what: kind of the rows, for error messages, for example "data set".
        name: name of a row, or `package.module:name`.
        table: all rows by name.
        own: the form of the user's own code in error messages.

    Raises:
        InputError: the name is unknown, or as in `import_function`.
    """
    if is_own(name):
        return import_function(what, name)
    if name not in table:
        raise unknown_name(what, name, [*table, own])
    return resolve(table[name].reference)


def load_class(what: str, name: str, table: Mapping[str, Row], base: type) -> Any:
    """Import the class of a row, or the user's own, and check that it is a frozen dataclass derived from `base`.

    Args:
        what: kind of the rows, for error messages, for example "attack".
        name: name of a row, or `package.module:Class`.
        table: all rows by name.
        base: the required base class.

    Raises:
        InputError: the name is unknown, the module cannot be imported, or the user's class is not such a class.
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


def is_own(name: str) -> bool:
    """Whether a name refers to the user's own code, as `package.module:name`."""
    return ":" in name


def search_working_directory() -> None:
    """Add the working directory to the places where Python looks for modules."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def import_function(what: str, reference: str) -> Any:
    """Import a function or a class by name; the working directory is searched too.

    Raises:
        InputError: the module cannot be imported, or its package defines no such function or class.
    """
    from robust_edge.torchvision_compat import prepare_torchvision

    search_working_directory()
    prepare_torchvision()  # the module may import it
    try:
        found = resolve(reference)
    except Exception as cause:  # the module is the user's; it may raise anything
        searched = f"; the working directory, {Path.cwd()}, is searched, too" * isinstance(cause, ModuleNotFoundError)
        raise InputError(
            f"{what} {reference!r} cannot be imported ({type(cause).__name__}: {cause}){searched}"
        ) from cause
    if not callable(found):
        raise InputError(f"{what} {reference!r} is not a function but {type(found).__name__}")
    home = getattr(found, "__module__", None)
    if str(home).partition(".")[0] != reference.partition(":")[0].partition(".")[0]:
        raise InputError(
            f"{what} {reference!r} is not defined in that package but in {home}; write a function that calls it"
        )
    return found
