"""The errors a user can meet; each class has one exit code.

Exit codes: 0 pass, 1 a gate failed, 2 usage or input, 3 backend or target not available here,
4 bundle invalid.
"""

from __future__ import annotations

import difflib
from typing import Iterable, Type


class RobustEdgeError(Exception):
    """What happened, the value seen, and the way out, in one line."""

    exit_code = 2


class InputError(RobustEdgeError):
    """Something the user gave cannot be used as it is."""


class ExportError(RobustEdgeError):
    """The exported file does not compute what the checkpoint computes."""

    exit_code = 1


class TrainingDiverged(RobustEdgeError):
    """A training that did not converge; the last good network, if there was one, is kept and marked."""

    exit_code = 1


class BackendUnavailable(RobustEdgeError):
    """A backend, a target or an extra is not available on this machine."""

    exit_code = 3


class BundleError(RobustEdgeError):
    """A bundle is damaged, incomplete, or not a bundle."""

    exit_code = 4


def unknown_name(
    what: str, name: str, known: Iterable[str], error: Type[RobustEdgeError] = InputError
) -> RobustEdgeError:
    """An error for a name that is not in a table, with the nearest one that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return error(f"unknown {what} {name!r}{hint} (known: {', '.join(names)})")
