"""The layers inside each package: folders import their own layer and lower ones, and no modules form a circle."""

from __future__ import annotations

import ast
import re
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
# From low to high, for each package and each folder that has folders of its own. A name is a folder or a module of the
# folder's root; what shares a line is one layer.
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
    "robust_edge_runtimes.formats": """
        format
        csr native onnx cuda
        onnx_cuda tensorrt
        table
        backends
    """,
    "robust_edge_runtimes.formats.tensorrt": """
        engine
        runtime
        format
    """,
    "robust_edge_exporters": """
        dispatch_mode evaluation_mode tracing quantisation format_option
        artifact weight_uses
        target
        schema
        differences
        standalone
        compaction
        native
        formats
        tolerance
        kernel_noise
        parity
        dense_baseline
        device_files
        bundle
        archive
    """,
    "robust_edge_exporters.native": """
        c_source
        geometry
        ir
        views tiling
        builder
        weights
        program
        kernel
        operators
        passes importer
        int8
        kernels
        joined
        plan
        emit
        export
    """,
    "robust_edge_exporters.native.int8": """
        arithmetic calibrate functions
        ops
        reference quantise
    """,
    "robust_edge_exporters.formats": """
        format
        onnx
        csr native onnx_cuda tensorrt
        table
    """,
    "robust_edge": """
        settings torchvision_compat onnx_graph int8
        plugins parallel
        data
        pruning
        models
        attacks
        config
        run
        checking
        evaluation
        training
        importing
        export
        verification
        reporting
        sweep
        demo
        cli
        __main__
    """,
    "robust_edge.models": """
        zoos small_cnn slim_resnet resnet mobilenet
        table normalized packed plain
        weight_file
        state_dict
        spec
        head
    """,
    "robust_edge.onnx_graph": """
        error
        operators
        file folding
        weights
        stripped
        network head
    """,
    "robust_edge.pruning": """
        prunable
        layout mask parametrised
        schemes
        settings
        admm
        loop
        moving
    """,
    "robust_edge.config": """
        presets training recipe export
        compress
        conflicts
        settings
        reference
    """,
    "robust_edge.verification": """
        settings stored_attack kernels
        claims
        new_export background
        paired_pgd
        twins
        subject
        probes eight_bits gradients inspection temperature
        modes
        merge
        verify
    """,
}
TABLE_ROW = re.compile(r"(robust_edge\w*(?:\.\w+)+):\w+")


def layers_of(folder: str) -> dict[str, int]:
    """The names in a folder to the number of their layer."""
    return {name: i for i, line in enumerate(LAYERS[folder].split("\n")) for name in line.split()}


def package_of(name: str) -> str:
    return name.split(".")[0]


def name_of(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


@cache
def modules(package: str) -> dict[str, Path]:
    """Every module of a package but the scripts that only ship inside bundles."""
    found = sorted(PACKAGES[package].rglob("*.py"))
    return {name_of(package, path): path for path in found if "templates" not in path.parts}


@cache
def imported(path: Path) -> tuple[tuple[int, str], ...]:
    """Line and module of every import in a file, those inside functions and those by a row of a table included."""
    return tuple(found_imports(path))


def found_imports(path: Path) -> Iterator[tuple[int, str]]:
    every = {name for package in PACKAGES for name in modules(package)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in every else str(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            row = TABLE_ROW.fullmatch(node.value)
            if row is not None:
                assert row[1] in every, f"{path}:{node.lineno}: {row[1]} is no module"
                yield node.lineno, row[1]


def inside(folder: str) -> dict[str, Path]:
    """The modules below a package or a folder, but its own `__init__`."""
    return {name: path for name, path in modules(package_of(folder)).items() if name.startswith(f"{folder}.")}


def name_in(folder: str, module: str) -> str:
    """The name in the folder that a module is or lies in."""
    return module[len(folder) + 1 :].split(".")[0]


def test_every_folder_with_folders_has_layers() -> None:
    for package in PACKAGES:
        nested = {name for name, path in modules(package).items() if any(path.parent.glob("*/__init__.py"))}
        folders = {name for name in nested if modules(package)[name].name == "__init__.py"}
        assert folders <= set(LAYERS), f"{folders - set(LAYERS)} have folders; add their layers to LAYERS"


@pytest.mark.parametrize("folder", LAYERS)
def test_every_module_stands_in_a_layer(folder: str) -> None:
    layers, there = set(layers_of(folder)), {name_in(folder, name) for name in inside(folder)}
    assert there <= layers, f"{there - layers} stand in no layer; add a line to LAYERS"
    assert layers <= there, f"LAYERS names {layers - there}, which do not exist"


@pytest.mark.parametrize("folder", LAYERS)
def test_no_folder_imports_an_upper_one(folder: str) -> None:
    """Only a folder's `__init__` offers what the folder holds; nothing inside asks it for that."""
    layers = layers_of(folder)
    upward = []
    for name, path in inside(folder).items():
        own = layers[name_in(folder, name)]
        for line, target in imported(path):
            if target == folder or (target.startswith(f"{folder}.") and layers.get(name_in(folder, target), 99) > own):
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
