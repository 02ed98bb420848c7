"""The history of verdicts on an artifact, which reveals that images were drawn repeatedly until one verdict passed.

Every verdict is listed for its user, in $XDG_STATE_HOME/robust-edge/verify.history or
~/.local/state/robust-edge/verify.history, and, if `verify -o` writes it, in a file beside it, which goes where the
verdict goes. Both have one line of JSON per verdict. A verdict on the same draws as an earlier one, with the same
attacks, seeds, number of images and outcome, is that one once more: it gives no other chance to pass, and is neither
listed nor told.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from pathlib import Path
from typing import Counter, Dict, List, Optional

from robust_edge_runtimes.verdict.judge import Verdict


def history_file(out: Path) -> Path:
    """Where the verdicts that were written to `out` are listed."""
    return out.with_name(out.name + ".history")


def user_history() -> Optional[Path]:
    """Where all verdicts of this user are listed; None for a user without a home."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path raises without a home
    return Path(base) / "robust-edge" / "verify.history" if Path(base).is_absolute() else None


def with_history(verdict: Verdict, out: Optional[Path]) -> Verdict:
    """The verdict with a note on other ones of the same artifact, of this user or written to `out`."""
    lines: Counter[str] = collections.Counter()
    files = []
    for path in _files(out):
        found = collections.Counter(line for line in _lines(path, verdict.artifact_sha256) if not _is(line, verdict))
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
    """Append the verdict's line to the history beside `out` and to the user's, if it can be written and is not there.

    Raises:
        OSError: the file beside `out` cannot be written.
    """
    line = {"utc": verdict.machine.utc, **_draws(verdict)}
    for path in _files(out):
        if any(_is(text, verdict) for text in _lines(path, verdict.artifact_sha256)):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:
            if path != user_history():
                raise


def _draws(verdict: Verdict) -> Dict[str, object]:
    """What tells one verdict from another."""
    return {
        "artifact_sha256": verdict.artifact_sha256,
        "outcome": verdict.outcome,
        "looks": verdict.looks,
        "attacks": [
            {"mode": mode.mode, "images": mode.images, **dataclasses.asdict(mode.attack)} for mode in verdict.modes
        ],
    }


def _is(text: str, verdict: Verdict) -> bool:
    """Whether a line is that of the verdict, but for its time."""
    line = json.loads(text)
    return {name: line.get(name) for name in _draws(verdict)} == _draws(verdict)


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
