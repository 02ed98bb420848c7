"""The errors that a user can meet; each class has one exit code.

Exit codes: 0 pass, 1 a check failed, 2 usage or input, 3 a backend or target is not available on this machine,
4 the bundle is invalid.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Type

MAX_NAME = 80
MAX_WORD = 400
_shown: Dict[str, str] = {}


class RobustEdgeError(Exception):
    """Base class. A message says in one line what happened, the value seen, and what to do about it.

    Attributes:
        longest: characters of a message; names of an untrusted file in it may be longer.
    """

    exit_code = 2
    longest = 900

    def __str__(self) -> str:
        """The message; of a copied folder it names the original."""
        text = shown(super().__str__())
        words = re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda word: middle_cut(word.group(), MAX_WORD), text)
        return middle_cut(words, self.longest)


def middle_cut(text: str, longest: int) -> str:
    """The text without its middle if it is longer than `longest` characters: what to do is told at its end."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 3]}...{text[-end:]}"


@contextlib.contextmanager
def shown_as(copy: Path, original: Path) -> Iterator[None]:
    """Let messages about a temporary copy name the folder that the user gave, also those of errors of the system."""
    _shown[str(copy)] = str(original)
    try:
        yield
    except (RobustEdgeError, OSError) as error:
        error.args = tuple(map(_with_originals, error.args))
        if isinstance(error, OSError):
            error.filename, error.filename2 = map(_with_originals, (error.filename, error.filename2))
        raise
    finally:
        del _shown[str(copy)]


def _with_originals(value: Any) -> Any:
    return shown(value) if isinstance(value, str) else value


def shown(text: str) -> str:
    """The text with the paths of copies replaced by those of their originals."""
    for copy, original in _shown.items():
        text = text.replace(copy, original)
    return text


class InputError(RobustEdgeError):
    """An argument, an option or a file that the user gave cannot be used."""


class ExportError(RobustEdgeError):
    """The exported file does not compute what the checkpoint computes."""

    exit_code = 1
    longest = 5000  # it may list what stands in the way of several targets


class TrainingDiverged(RobustEdgeError):
    """Training diverged; the last good weights, if there are any, are kept and marked as such."""

    exit_code = 1


class BackendUnavailable(RobustEdgeError):
    """A backend, a target or an optional package is not available on this machine."""

    exit_code = 3


class BundleError(RobustEdgeError):
    """A bundle is damaged, incomplete, or not a bundle."""

    exit_code = 4


def unknown_name(
    what: str, name: str, known: Iterable[str], error: Type[RobustEdgeError] = InputError
) -> RobustEdgeError:
    """An error for a name that is not among the known ones; its message suggests the closest of them.

    A name from an untrusted file may be of any length; the message shows its beginning.
    """
    names = sorted(known)
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return error(f"unknown {what} {name!r}{hint} (known: {', '.join(names)})")
