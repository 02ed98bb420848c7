"""Where the result files of the benchmarks lie, what each says first, and how it is written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.files import write_atomic

RESULTS = Path(__file__).with_name("results")
WIDTH = 320


def provenance(command: str, *packages: str) -> dict[str, Any]:
    """The command that writes the file, the commit and the machine that it ran on, and the versions of `packages`."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    versions = {name: version(name) for name in packages}
    return {"command": command, "commit": git.stdout.strip(), "machine": dataclasses.asdict(machine()), **versions}


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write `result` as JSON."""
    write_atomic(path, json_rows(json.loads(json.dumps(result))) + "\n")


def json_rows(value: Any, indent: int = 0) -> str:
    """JSON with each list and object on one line where that is short enough, so that a table has one line a row."""
    line, inner = json.dumps(value, ensure_ascii=False), indent + 1
    if not value or not isinstance(value, (dict, list)) or indent + len(line) <= WIDTH:
        return line
    if isinstance(value, list):
        items = [json_rows(item, inner) for item in value]
    else:
        items = [f"{json.dumps(key)}: {json_rows(item, inner)}" for key, item in value.items()]
    start, end = line[0], line[-1]
    return start + ",".join(f"\n{' ' * inner}{item}" for item in items) + f"\n{' ' * indent}{end}"
