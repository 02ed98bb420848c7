"""The table of pruning schemes; a row names a class in a file of its own, whose fields are the scheme's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_edge.plugins import Row, load_class
from robust_edge.pruning.schemes.scope import SCOPE

if TYPE_CHECKING:
    from robust_edge.pruning.schemes.scheme import Scheme

SCHEMES = {
    "irregular": Row(
        "robust_edge.pruning.schemes.irregular:Irregular",
        "any weights; the largest are kept",
        options={"scope": ("str", SCOPE)},
    ),
    "funnel": Row("robust_edge.pruning.schemes.funnel:Funnel", "a smaller kept fraction in every deeper layer"),
    "redundant": Row(
        "robust_edge.pruning.schemes.redundant:Redundant", "whole filters, without filters similar to a stronger one"
    ),
    "nm": Row(
        "robust_edge.pruning.schemes.nm:NOfM", "n of m neighbouring weights, for example 2:4 for sparse tensor cores"
    ),
    "block": Row(
        "robust_edge.pruning.schemes.block:Block",
        "four consecutive input channels together, for 8-bit dot products",
        options={"scope": ("str", SCOPE)},
    ),
    "filter": Row(
        "robust_edge.pruning.schemes.filter:Filter",
        "whole channels, which `export` removes",
        options={"scope": ("str", SCOPE)},
    ),
}


def scheme_class(name: str) -> type[Scheme]:
    """Import the class of a scheme, or the user's own.

    Raises:
        InputError: the name is unknown, the module cannot be imported, or the class is not a scheme.
    """
    from robust_edge.pruning.schemes.scheme import Scheme  # imports torch, which the table itself does not need

    return load_class("scheme", name, SCHEMES, Scheme)  # type: ignore[no-any-return]


def scheme_name(cls: type[Scheme]) -> str:
    """The name by which `scheme_class` finds the class."""
    reference = f"{cls.__module__}:{cls.__qualname__}"
    return next((name for name, row in SCHEMES.items() if row.reference == reference), reference)
