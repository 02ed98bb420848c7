"""The history of verdicts on an artifact, which reveals that images were drawn repeatedly until one verdict passed.

The history is a file beside the one that `verify -o` writes, with one line of JSON per verdict. Verdicts that are only
printed are listed per user, in $XDG_STATE_HOME/robust-edge/verify.history or ~/.local/state/robust-edge/verify.history.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from pathlib import Path
from typing import List, Optional

from robust_edge_runtimes.verdict.judge import Verdict


def history_file(out: Optional[Path]) -> Path:
    """Where the verdicts that were written to `out` are listed; None for those that were only printed."""
    if out is not None:
        return out.with_name(out.name + ".history")
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path raises without a home
    return Path(base) / "robust-edge" / "verify.history"


def with_history(verdict: Verdict, out: Optional[Path]) -> Verdict:
    """The verdict with a note on earlier ones of the same artifact that were written to `out`, or only printed."""
    earlier = [outcome for artifact, outcome in _entries(history_file(out)) if artifact == verdict.artifact_sha256]
    if not earlier:
        return verdict
    counts = collections.Counter(earlier)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    note = (
        f"this artifact was verified {times} before ({outcomes}), by {history_file(out).name}: among repeated draws of "
        "images one may pass by chance"
    )
    return dataclasses.replace(verdict, notes=(*verdict.notes, note))


def add_to_history(verdict: Verdict, out: Optional[Path]) -> None:
    """Append the verdict's line; a user without a folder for such files has no history of printed verdicts.

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
    path = history_file(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError:
        if out is not None:
            raise


def _entries(path: Path) -> List[List[str]]:
    """Artifact and outcome of every line; lines that cannot be parsed are ignored."""
    if not (path.is_file() and os.access(str(path), os.R_OK)):
        return []
    found = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            found.append([str(line["artifact_sha256"]), str(line["outcome"])])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found
