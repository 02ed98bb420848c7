"""One form of one kind of tampered bundle, and the usual ways to make one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.attacks import forgery, surgery
from tests.attacks.workshop import BENIGN, ROBUST, Workshop

PASS, FAIL, REFUSED = 0, 1, 4
INT8, CSR, NATIVE = "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse"
Make = Callable[[Workshop, Path], object]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One form of one row of the table in docs/verification-tampered.md, and what `robust-edge verify` must say of it.

    Attributes:
        row: the first cell of the row.
        form: which of the forms that the row names; empty if there is one only.
        make: writes the bundle into a new folder.
        exit: exit code.
        reasons: names of flags and drops, separated by blanks, that the verdict must give.
        words: what the command must write; {} is the path of the artifact.
        options: of the command, beside the run.
        meanwhile: changes the bundle when `verify` has copied it.
        holds: what else must be true of the verdict, as in verify.json.
        mark: name of a file beside the bundle that must not exist afterwards.
    """

    row: str
    form: str
    make: Make
    exit: int = FAIL
    reasons: str = ""
    words: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    meanwhile: Callable[[Workshop, Path], None] | None = None
    holds: Callable[[Mapping[str, Any], Workshop], bool] | None = None
    mark: str = ""


def row(name: str, *forms: tuple[Any, ...], **demands: Any) -> list[Kind]:
    """All forms of a row: each (form, make) or (form, make, demands of its own)."""
    return [Kind(name, form, make, **{**demands, **(own[0] if own else {})}) for form, make, *own in forms]


def of(target: str = "x86-cpu", *files: Any, **claims: Any) -> Make:
    """The robust network's own bundle, changed as by `forged`."""
    return lambda shop, path: forgery.forged(shop.bundle(target), path, *files, **claims)


def graph(change: Callable[[Any], Any], name: str = ROBUST) -> Make:
    """The robust network's bundle with a changed ONNX file, of another network perhaps."""

    def make(shop: Workshop, path: Path) -> None:
        program = shop.program(name)
        changed = change(program)
        forgery.forged(shop.bundle(), path, forgery.program(program if changed is None else changed))

    return make


def reweighted(change: Callable[[Any, int], Any]) -> Make:
    """The robust network's bundle with other weights."""
    return graph(lambda program: surgery.reweighted(program, change))


def benign(*, vouched: bool = False, scaled: bool = False, **claims: Any) -> Make:
    """The robust network's bundle with the artifact of a network that was trained without attacks."""

    def make(shop: Workshop, path: Path) -> Path:
        program = surgery.scaled(shop.program(BENIGN)) if scaled else shop.program(BENIGN)
        forgery.forged(shop.bundle(), path, forgery.program(program), **claims)
        return forgery.vouched(path) if vouched else path

    return make
