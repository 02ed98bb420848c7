"""Files stay short enough to be read at once, and every benchmark still imports what it uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("robust_edge", "exporters", "runtimes", "tests", "benchmarks", "examples", "docs")
KINDS = {".py", ".c", ".h", ".sh", ".toml", ".yaml", ".md"}  # written by people; results and schemas are data
MOST_LINES = 400


def test_no_file_is_over_400_lines() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in KINDS]
    assert len(files) > 300
    long = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files}
    assert not {name: lines for name, lines in long.items() if lines > MOST_LINES}


def test_every_benchmark_imports_what_there_is() -> None:
    folder = ROOT / "benchmarks"
    names = sorted(path.stem for path in folder.glob("*.py"))
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
