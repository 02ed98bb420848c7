"""Import a program of torch.export: it is written as ONNX, and imported as that."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from robust_edge.importing.onnx import TOLERANCE, read_onnx
from robust_edge.importing.reference import run_graph
from robust_edge.importing.source import Request, Source, refuse_code
from robust_edge.onnx_graph.file import read_program as read_file
from robust_edge_exporters.formats.onnx.conversion_error import silenced
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.scoring import relative_error


def read_program(request: Request) -> Source:
    """Convert the program without optimisations, which would change weights.

    Raises:
        InputError: code is not allowed, or the file cannot be read or converted.
    """
    refuse_code(request.path, allowed=request.allow_code)
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
            root: BaseException = cause
            while root.__cause__ is not None:
                root = root.__cause__
            reason = " ".join(str(root).split())[:300]
            raise InputError(f"{request.path} cannot be read as a program of torch.export: {reason}") from cause
        try:
            source = read_onnx(dataclasses.replace(request, path=path))
        except InputError as cause:
            raise InputError(str(cause).replace(str(path), str(request.path))) from cause
        _refuse_another_network(program, path, source.shape, request)
        return source


def _refuse_another_network(program: Any, path: Path, shape: tuple[int, ...], request: Request) -> None:
    """Compare the program with its ONNX file: torch converts a few operators as others, and says nothing.

    Args:
        program: of torch.export; its first input is the images.
        path: of the ONNX file, which has one input and one output.
        shape: (C, H, W).
        request: names the program's own file.

    Raises:
        InputError: their outputs differ.
    """
    name = program.graph_signature.user_inputs[0]
    count = next(node.meta["val"].shape[0] for node in program.graph.nodes if node.name == name)
    images = torch.rand(count if isinstance(count, int) else 2, *shape, generator=torch.Generator().manual_seed(0))
    args, given = program.example_inputs or ((images,), {})
    with torch.no_grad(), silenced():
        copied = images.clone()  # which the program may overwrite
        outputs = program.module()(*(copied for _ in args), **dict.fromkeys(given, copied))
    expected = next(iter(tree_leaves(outputs))).numpy()
    graph = read_file(path)
    (found,) = run_graph(graph, images.numpy(), [graph.graph.output[0].name])
    error = relative_error(found, expected)
    if not error <= TOLERANCE:
        raise InputError(
            f"{request.path}: as ONNX, the program gives outputs that differ by {error:.2g} (relative); export it in "
            "evaluation mode, or import its weights as a state dict with `arch`"
        )


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
