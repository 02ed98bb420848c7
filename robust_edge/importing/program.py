"""Import a program of torch.export: it is written as ONNX, and imported as that."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import torch

from robust_edge.importing.onnx import read_onnx
from robust_edge.importing.source import Request, Source
from robust_edge_exporters.formats.onnx.conversion_error import silenced
from robust_edge_runtimes.core.errors import InputError


def read_program(request: Request) -> Source:
    """Convert the program without optimisations, which would change weights.

    Raises:
        InputError: code is not allowed, since torch unpickles the file; or it cannot be read or converted.
    """
    if not request.allow_code:
        raise InputError(
            f"{request.path}: torch.export.load can run code that the file holds; pass `allow_code` if you trust it, "
            "or import an ONNX file"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.onnx"
        try:
            with silenced():
                program = torch.export.load(str(request.path))
                converted = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
                assert converted is not None
                converted.save(str(path))
        except Exception as cause:  # torch raises whatever the bytes provoke
            reason = " ".join(str(cause).split())[:300]
            raise InputError(f"{request.path} cannot be read as a program of torch.export: {reason}") from cause
        return read_onnx(dataclasses.replace(request, path=path))
