"""Import a program of torch.export: it is written as ONNX, and imported as that."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

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
                _rename_values(converted.model.graph)
                converted.save(str(path))
        except Exception as cause:  # torch raises whatever the bytes provoke
            reason = " ".join(str(cause).split())[:300]
            raise InputError(f"{request.path} cannot be read as a program of torch.export: {reason}") from cause
        try:
            return read_onnx(dataclasses.replace(request, path=path))
        except InputError as cause:
            raise InputError(str(cause).replace(str(path), str(request.path))) from cause


def _rename_values(graph: Any) -> None:
    """Rename inputs and values of nodes that have the name of a weight.

    torch calls a value after its operator (`mean`), and a weight as the program does. Two of one name are no ONNX.

    Args:
        graph: of onnx_ir; changed in place.
    """
    weights = graph.initializers
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    taken = {value.name for value in values} | set(weights)
    for value in values:
        if value.name in weights and weights[value.name] is not value:
            number = next(i for i in range(len(taken) + 1) if f"{value.name}_value_{i}" not in taken)
            value.name = f"{value.name}_value_{number}"
            taken.add(value.name)
