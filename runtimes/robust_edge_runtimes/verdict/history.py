"""The history of verdicts on an artifact, which reveals that images were drawn repeatedly until one verdict passed.

Every verdict is listed for its user, in $XDG_STATE_HOME/robust-edge/verify.history or
~/.local/state/robust-edge/verify.history, and, if `verify -o` writes it, in a file beside it, which goes where the
verdict goes. Both have one line of JSON per verdict.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from pathlib import Path
from typing import Counter, List, Optional

from robust_edge_runtimes.verdict.judge import Verdict


def history_file(out: Path) -> Path:
    """Where the verdicts that were written to `out` are listed."""
    return out.with_name(out.name + ".history")


def user_history() -> Optional[Path]:
    """Where all verdicts of this user are listed; None for a user without a home."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path raises without a home
    return Path(base) / "robust-edge" / "verify.history" if Path(base).is_absolute() else None


def with_history(verdict: Verdict, out: Optional[Path]) -> Verdict:
    """The verdict with a note on earlier ones of the same artifact, of this user or written to `out`."""
    lines: Counter[str] = collections.Counter()
    files = []
    for path in _files(out):
        found = collections.Counter(_lines(path, verdict.artifact_sha256))
        files += [path.name] if found else []
        lines |= found  # a verdict that is listed in both files counts once
    if not lines:
        return verdict
    earlier = [str(json.loads(line)["outcome"]) for line in lines.elements()]
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(collections.Counter(earlier).items()))
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    note = (
        f"this artifact was verified {times} before ({outcomes}), by {' and '.join(files)}: among repeated draws of "
        "images one may pass by chance"
    )
    return dataclasses.replace(verdict, notes=(*verdict.notes, note))


def add_to_history(verdict: Verdict, out: Optional[Path]) -> None:
    """Append the verdict's line to the history beside `out` and to the user's, if it can be written.

    Raises:
        OSError: the file beside `out` cannot be written.
    """
    line = {
        "utc": verdict.machine.utc,
        "artifact_sha256": verdict.artifact_sha256,
        "outcome": verdict.outcome,
        "looks": verdict.looks,
        "attacks": [f"{mode.mode} seed {mode.attack.seed}" for mode in verdict.modes],
    }
    for path in _files(out):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:
            if path != user_history():
                raise


def _files(out: Optional[Path]) -> List[Path]:
    """The history beside `out` and the user's, as far as there are such."""
    return [path for path in (history_file(out) if out is not None else None, user_history()) if path is not None]


def _lines(path: Path, artifact_sha256: str) -> List[str]:
    """The lines of this artifact that have an outcome; lines that cannot be parsed are ignored."""
    if not (path.is_file() and os.access(str(path), os.R_OK)):
        return []
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            if str(line["artifact_sha256"]) == artifact_sha256 and str(line["outcome"]):
                found.append(text)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found
