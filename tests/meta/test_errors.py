"""Errors of library code name settings and parameters; the command line adds the flags."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("robust_edge", "exporters/robust_edge_exporters", "runtimes/robust_edge_runtimes")
FLAG = re.compile(r"(?<=[ '\"`])--?[a-z]")
COMMAND = re.compile(r"(robust-edge|build_engine\.py|pip install|tar) [^;`]*")  # one that is to be run as it stands


def raised(file: Path) -> list[str]:
    """The code of every raise statement and every call of `require` in a file."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require")
    ]


def test_no_error_of_library_code_names_a_flag() -> None:
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    library = [path for path in files if "cli" not in path.parts and "templates" not in path.parts]
    texts = [(str(path), text) for path in library for text in raised(path)]
    assert len(texts) > 300
    assert not [(path, text) for path, text in texts if FLAG.search(COMMAND.sub("", text))]
