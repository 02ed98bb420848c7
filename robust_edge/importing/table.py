"""The table of the kinds of files that can be imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from robust_edge.importing.source import Request, Source, refuse_code
from robust_edge.plugins import Row
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.references import resolve

PROGRAM = Row("robust_edge.importing.program:read_program", "a program of torch.export, with --allow-code")
STATE_DICT = Row("robust_edge.importing.state_dict:read_state_dict", "weights of --arch")
SOURCES = {
    ".onnx": Row("robust_edge.importing.onnx:read_onnx", "graph and weights"),
    ".pt2": PROGRAM,
    ".safetensors": STATE_DICT,
    ".pth": STATE_DICT,
    ".pt": STATE_DICT,
    ".ckpt": STATE_DICT,
    ".bin": STATE_DICT,
}
"""How the name of a file ends, to a function `(Request) -> Source`."""


def read_source(request: Request) -> Source:
    """Read a network from a file of any kind.

    Raises:
        InputError: as `require_source`, or the file cannot be imported.
    """
    row = require_source(request.path, request.arch, allow_code=request.allow_code)
    read: Callable[[Request], Source] = resolve(row.reference)
    return read(request)


def require_source(path: Path, arch: str | None, *, allow_code: bool) -> Row:
    """The row of a file's kind; nothing of the file is read.

    Raises:
        InputError: the file does not exist or is of another kind, its kind does not go with `arch`, or reading it can
            run code, which is not allowed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if path.suffix.lower() not in SOURCES:
        kinds = ", ".join(SOURCES)
        raise InputError(f"{path} is of no kind that can be imported; its name must end in one of {kinds}")
    row = SOURCES[path.suffix.lower()]
    if arch is not None and row is not STATE_DICT:
        raise InputError(f"{path} holds its own architecture; leave `arch` out")
    if arch is None and row is STATE_DICT:
        raise InputError(f"{path} holds weights only; name their architecture in `arch`")
    if row is PROGRAM:
        refuse_code(path, allowed=allow_code)
    return row
