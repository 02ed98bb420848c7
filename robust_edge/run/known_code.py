"""Functions of the user's own that runs name: which ones this user has chosen here before.

A run's config names the functions that build its network and read its data (`my_package:build`), and later commands
import them. A run from elsewhere could name any function of this machine, or come with a module of its own. So the
references of a new run are remembered, each with the file or folder of its package, and a run that names others is
refused unless the user allows it. They are kept per user, outside of all runs, as one JSON list in each line of
$XDG_STATE_HOME/robust-edge/known-code.jsonl or ~/.local/state/robust-edge/known-code.jsonl.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path

from robust_edge.plugins import search_working_directory
from robust_edge_runtimes.core.errors import InputError

UNKNOWN_PLACE = "a module that is loaded already"


def remember(references: Iterable[str]) -> None:
    """Remember functions that the user has chosen; where that cannot be written, their runs will need `allow_code`."""
    known = _known()
    new = [entry for entry in ([name, _place(name)] for name in references) if entry not in known]
    if new:
        with contextlib.suppress(OSError):
            path = _file()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(entry) + "\n" for entry in new))


def refuse_unknown(references: Iterable[str], run: Path) -> None:
    """Raise InputError for a function that a run names and this user has never chosen; nothing is imported.

    A reference to a package that is not installed passes, since its import fails later.
    """
    for name in references:
        place = _place(name)
        if place is not None and [name, place] not in _known():
            raise InputError(
                f"{run} runs code: it names {name!r} (in {place}), which no run that was made here by this user names; "
                "set `allow_code` if you trust this run and this code"
            )


def _file() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base) / "robust-edge" / "known-code.jsonl"


def _place(reference: str) -> str | None:
    """File or folder of the package of `package.module:name`, found without running it; None if there is none."""
    search_working_directory()
    package = reference.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # such as __main__
        return UNKNOWN_PLACE
    if spec is None:
        return None
    return str(spec.origin or next(iter(spec.submodule_search_locations or ()), UNKNOWN_PLACE))


def _known() -> list[list[str]]:
    """All entries; lines that cannot be parsed are ignored."""
    with contextlib.suppress(OSError):
        lines = _file().read_text("utf-8", errors="replace").splitlines()
        return [entry for line in lines for entry in _parsed(line)]
    return []


def _parsed(line: str) -> list[list[str]]:
    try:
        return [json.loads(line)]
    except ValueError:
        return []
