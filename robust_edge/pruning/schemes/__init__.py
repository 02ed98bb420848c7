"""The table of schemes: a scheme is one file with a class that holds its settings, and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_edge.plugins import Row, load_class

if TYPE_CHECKING:
    from robust_edge.pruning.schemes.scheme import Scheme

SCHEMES = {
    "irregular": Row("robust_edge.pruning.schemes.irregular:Irregular", "any weights"),
    "funnel": Row("robust_edge.pruning.schemes.funnel:Funnel", "less in every deeper layer"),
    "redundant": Row("robust_edge.pruning.schemes.redundant:Redundant", "no filters alike"),
    "nm": Row("robust_edge.pruning.schemes.nm:NOfM", "n of m neighbours, 2 of 4 as GPUs run them"),
    "filter": Row("robust_edge.pruning.schemes.filter:Filter", "whole channels, which export takes out"),
}


def scheme_class(name: str) -> type[Scheme]:
    """The class of a row, or the user's own.

    Raises:
        InputError: an unknown name, a module that cannot be imported, something that is no scheme.
    """
    from robust_edge.pruning.schemes.scheme import Scheme  # brings torch, which the table itself does not need

    return load_class("scheme", name, SCHEMES, Scheme)  # type: ignore[no-any-return]


def scheme_name(cls: type[Scheme]) -> str:
    """What `scheme_class` finds the class by."""
    reference = f"{cls.__module__}:{cls.__qualname__}"
    return next((name for name, row in SCHEMES.items() if row.reference == reference), reference)
