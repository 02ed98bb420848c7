"""Conversions to ONNX that several exports share, with the source line of every node."""

from __future__ import annotations

import ast
import contextlib
import contextvars
import dataclasses
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

FRAME = re.compile(r'File "([^"]+)", line (\d+)')
OWN = (("robust_edge", "models"), ("robust_edge", "onnx_graph"), ("onnx_graph", "operators"))
"""Folders of this toolkit whose code is no network of the user's."""
SCOPES, STACK = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace"


@dataclasses.dataclass(frozen=True)
class Conversions:
    """Conversions so far.

    Attributes:
        programs: each with its network, by the identity of that, the exporter, the opset and the batch size.
        sources: what node comes from which module and line, by the node's name.
    """

    programs: dict[tuple[Any, ...], tuple[nn.Module, Any]] = dataclasses.field(default_factory=dict)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)


_SHARED: contextvars.ContextVar[Conversions | None] = contextvars.ContextVar("conversions", default=None)


@contextlib.contextmanager
def shared_conversions() -> Iterator[Conversions]:
    """Inside of the outermost block every conversion of a network is done once; no network may change there."""
    made = _SHARED.get() or Conversions()
    token = _SHARED.set(made)
    try:
        yield made
    finally:
        _SHARED.reset(token)


def current_conversions() -> Conversions | None:
    """Those of the block around the caller, if there is one."""
    return _SHARED.get()


def sources_of(program: Any) -> dict[str, str]:
    """Module and line of the user's code by the node's name, where torch has noted them."""
    found = {}
    for node in program.graph.node:
        notes = {item.key: item.value for item in node.metadata_props}
        parts = [_module(notes.get(SCOPES, "[]")), _line(notes.get(STACK, ""))]
        if any(parts):
            found[node.name] = ", ".join(part for part in parts if part)
    return found


def _module(scopes: str) -> str:
    names = ast.literal_eval(scopes)[:-1]
    inside = [name.removeprefix("network.") for name in names if name not in ("", "network")]
    return f"module {inside[-1]!r}" if inside else ""


def _line(stack: str) -> str:
    """File and line of the innermost stack frame outside installed packages and this one."""
    installed = sysconfig.get_paths()["purelib"]
    own = [
        (path, line)
        for path, line in FRAME.findall(stack)
        if not path.startswith(installed) and Path(path).parts[-3:-1] not in OWN
    ]
    return f"line {own[-1][1]} of {own[-1][0]}" if own else ""
