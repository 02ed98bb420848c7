"""Join modules of the runtimes to one script, for devices on which robust-edge is not installed."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterable

PACKAGE = "robust_edge_runtimes"


def standalone(module: str) -> str:
    """Join a module and all modules of the runtimes that it imports to one script.

    Each module is placed after those that it imports, without its import statements: imports from the runtimes are not
    needed in the script, all others are collected at the top. Therefore the modules share one namespace, and must
    import from the runtimes by `from MODULE import NAME` only.

    Args:
        module: its full name, `robust_edge_runtimes. ...`.

    Returns:
        The script, beginning with the module's own docstring.
    """
    trees: dict[str, ast.Module] = {}
    _follow(module, trees)
    source = _source(module)
    head = [source.splitlines()[0]] if source.startswith("#!") else []
    head += [f'"""{ast.get_docstring(trees[module], clean=False)}"""', "", *_collected_imports(trees.values()), ""]
    parts = [f"\n# {name}\n\n\n{_without_imports(name, tree)}\n" for name, tree in trees.items()]
    return "\n".join(head) + "\n".join(parts)


def definitions(module: str) -> str:
    """The source of a module without its docstring and imports, to be placed in another script."""
    return _without_imports(module, ast.parse(_source(module)))


def _follow(module: str, trees: dict[str, ast.Module]) -> None:
    """Add the module to `trees`, after those that it imports."""
    if module in trees:
        return
    tree = ast.parse(_source(module))
    for imported in _imports(tree):
        if isinstance(imported, ast.ImportFrom) and _is_ours(imported):
            assert all(alias.asname is None for alias in imported.names), f"{module} renames what it imports"
            _follow(str(imported.module), trees)
    trees[module] = tree


def _source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


def _is_ours(node: ast.ImportFrom) -> bool:
    return str(node.module).split(".")[0] == PACKAGE


def _collected_imports(trees: Iterable[ast.Module]) -> list[str]:
    """The imports of all modules except those of the runtimes, each once, those of the standard library first."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    for node in (node for tree in trees for node in _imports(tree)):
        if isinstance(node, ast.Import):
            plain |= {ast.unparse(ast.Import([alias])) for alias in node.names}
        elif not _is_ours(node):
            names.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    lines = [*sorted(plain), *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names))]
    standard = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in standard]
    return [*standard, "", *others] if others else standard


def _without_imports(module: str, tree: ast.Module) -> str:
    """The source after the docstring, without the imports."""
    lines = _source(module).splitlines()
    for node in (tree.body[0], *_imports(tree)):
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = ""
    return "\n".join(lines[tree.body[0].end_lineno :]).strip()
