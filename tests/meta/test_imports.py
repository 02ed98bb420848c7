"""Imports run one way, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "robust_edge": ROOT / "robust_edge",
    "robust_edge_exporters": ROOT / "exporters/robust_edge_exporters",
    "robust_edge_runtimes": ROOT / "runtimes/robust_edge_runtimes",
}
FORBIDDEN = {
    "robust_edge": set(),
    "robust_edge_exporters": {"robust_edge"},
    "robust_edge_runtimes": {"robust_edge", "robust_edge_exporters"},
}
CONSOLE = "cli"


def sources(package: str) -> list[Path]:
    return [path for path in sorted(PACKAGES[package].rglob("*.py")) if "templates" not in path.parts]


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


def module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run on import: not those inside functions."""
    queue: list[ast.AST] = list(tree.body)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            queue.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    files = sources(package)
    assert files
    for path in files:
        upward = imported(ast.walk(ast.parse(path.read_text()))) & FORBIDDEN[package]
        assert not upward, f"{path} imports {upward}"


def test_the_device_side_imports_only_the_standard_library_and_numpy() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "robust_edge_runtimes"}
    for path in sources("robust_edge_runtimes"):
        extra = imported(module_level(ast.parse(path.read_text()))) - allowed
        assert extra <= ({"click"} if path.parent.name == CONSOLE else set()), f"{path} imports {extra}"


@pytest.mark.parametrize("module", ["robust_edge.cli", "robust_edge_runtimes.cli.main", "robust_edge_runtimes"])
def test_nothing_heavy_is_imported_before_a_command_runs(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"torch", "onnx", "onnxruntime", "matplotlib", "sklearn", "yaml", "PIL", "jinja2"}


def test_the_device_side_imports_few_modules_beyond_numpy() -> None:
    code = "import sys, numpy; before = {*sys.modules}; import robust_edge_runtimes; print(*{*sys.modules} - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    slow = {"asyncio", "click", "concurrent", "ctypes", "email", "http", "logging", "multiprocessing", "ssl", "xml"}
    assert not {name.split(".")[0] for name in loaded} & slow
    assert len(loaded) < 80, sorted(loaded)  # they were 51
