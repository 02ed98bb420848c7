"""What the result file of every benchmark says first."""

from __future__ import annotations

import dataclasses
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robust_edge_runtimes.core.environment import machine


def provenance(command: str, *packages: str) -> dict[str, Any]:
    """The command that writes the file, the commit and the machine that it ran on, and the versions of `packages`."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    versions = {name: version(name) for name in packages}
    return {"command": command, "commit": git.stdout.strip(), "machine": dataclasses.asdict(machine()), **versions}
