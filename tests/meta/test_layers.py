"""The layers inside each package: folders import their own layer and lower ones, and no modules form a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "robust_edge": ROOT / "robust_edge",
    "robust_edge_exporters": ROOT / "exporters/robust_edge_exporters",
    "robust_edge_runtimes": ROOT / "runtimes/robust_edge_runtimes",
}
# From low to high. A name is a folder or a module of the package's root; what shares a line is one layer.
LAYERS = {
    "robust_edge_runtimes": """
        core
        scoring
        formats
        load
        attacks
        bench
        diagnosis
        verdict
        modes
        present
        cli
    """,
    "robust_edge_exporters": """
        artifact
        target
        schema
        differences
        standalone
        compaction
        native
        formats
        tolerance
        parity
        dense_baseline
        device_files
        bundle
        archive
    """,
    "robust_edge": """
        plugins torchvision_compat
        settings parallel
        data
        pruning
        models
        attacks
        config
        run
        evaluation
        training
        export
        verification
        reporting
        demo
        cli
        __main__
    """,
}


def layer_of() -> dict[str, dict[str, int]]:
    return {
        package: {name: i for i, line in enumerate(text.split("\n")) for name in line.split()}
        for package, text in LAYERS.items()
    }


def name_of(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


@cache
def modules(package: str) -> dict[str, Path]:
    """Every module of a package but the scripts that only ship inside bundles."""
    found = sorted(PACKAGES[package].rglob("*.py"))
    return {name_of(package, path): path for path in found if "templates" not in path.parts}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import in a file, those inside functions included."""
    every = {name for package in PACKAGES for name in modules(package)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in every else str(node.module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_stands_in_a_layer(package: str) -> None:
    layers = layer_of()[package]
    lost = {name.split(".")[1] for name in modules(package) if "." in name} - set(layers)
    assert not lost, f"{lost} stand in no layer; add a line to LAYERS"
    there = {name.split(".")[1] for name in modules(package) if "." in name}
    assert set(layers) <= there, f"LAYERS names {set(layers) - there}, which do not exist"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_an_upper_one(package: str) -> None:
    layers = layer_of()[package]
    upward = []
    for name, path in modules(package).items():
        if "." not in name:  # the package itself offers what its folders hold
            continue
        own = layers[name.split(".")[1]]
        for line, target in imported(path):
            head, _, rest = target.partition(".")
            if head == package and (not rest or layers.get(rest.split(".")[0], 99) > own):
                upward.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not upward, "\n".join(upward)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Depth first over all imports, those inside functions included: a module that is met again is in a circle."""
    graph = {
        name: sorted({target for _, target in imported(path) if target in modules(package) and target != name})
        for package in PACKAGES
        for name, path in modules(package).items()
    }
    graph = {name: [target for target in targets if target in graph] for name, targets in graph.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, "imports in a circle: " + " -> ".join((*way[way.index(name) :], name))
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*way, name))
        done.add(name)

    for name in graph:
        visit(name, ())
