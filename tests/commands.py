"""Running the installed commands, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*words: str | Path, cwd: Path | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `robust-edge ...` or `robust-edge-device ...` and check the exit code."""
    name, *rest = (str(word) for word in words)
    modules = {"robust-edge": "robust_edge.cli", "robust-edge-device": "robust_edge_runtimes.cli.main"}
    script = Path(sys.executable).parent / name
    command = [str(script)] if script.is_file() else [sys.executable, "-c", f"from {modules[name]} import main; main()"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run([*command, *rest], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{name} {' '.join(rest)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
