"""Changes to an ONNX graph before it becomes a network: the shape of images is fixed, dropout and softmax removed."""

from __future__ import annotations

import math
from typing import Any

from robust_edge_runtimes.core.errors import InputError

MOST_PIXELS = 1 << 27  # of one batch; two of them are compared in float64
AFTER_LOGITS = ("Softmax", "LogSoftmax")


def fix_image_shape(program: Any, wanted: tuple[int, ...] | None, path: str) -> tuple[tuple[int, ...], int | None]:
    """Give the input any number of images of one shape.

    Args:
        program: changed in place.
        wanted: (C, H, W); None for what the file says.
        path: of the file, for error messages.

    Returns:
        (C, H, W), and the number of images in a batch that the file was written for, None for any.

    Raises:
        InputError: the graph has not one input of images and one output, or its shape is another or too large.
    """
    from onnx import TensorProto

    graph = program.graph
    known = {item.name for item in graph.initializer}
    ports = [port for port in graph.input if port.name not in known]
    if len(ports) != 1 or len(graph.output) != 1:
        names = [port.name for port in (*ports, *graph.output)]
        raise InputError(
            f"{path} has {len(ports)} inputs and {len(graph.output)} outputs ({', '.join(names)}); a classifier "
            "has one of each"
        )
    kind = ports[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
        raise InputError(f"{path} does not take images as float32 (N, C, H, W); its input is {_shown(kind)}")
    sizes = [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim]  # some exporters write -1
    own = sizes[1:]
    shape = tuple(size or (wanted[i] if wanted else 0) for i, size in enumerate(own))
    if not all(shape):
        raise InputError(f"{path} takes images of {_sizes(own)}; give `shape`, such as 3x224x224")
    if wanted is not None and shape != tuple(wanted):
        raise InputError(
            f"{path} takes images of {_sizes(own)}, given are images of {_sizes(wanted)}; resize them with "
            "data.resize, or use others"
        )
    if math.prod((sizes[0] or 1, *shape)) > MOST_PIXELS:
        raise InputError(
            f"{path} takes batches of {sizes[0] or 1} images of {_sizes(own)}, more than {MOST_PIXELS} numbers; export "
            "the network for fewer or smaller images"
        )
    for size, value in zip(kind.shape.dim, (0, *shape), strict=True):
        size.Clear()
        if value:
            size.dim_value = value
        else:
            size.dim_param = "N"
    del graph.value_info[:]
    graph.output[0].type.tensor_type.ClearField("shape")
    return shape, sizes[0]


def without_dropout(program: Any) -> list[str]:
    """Remove dropout, which does nothing in inference."""
    removed = [node for node in program.graph.node if node.op_type == "Dropout"]
    for node in removed:
        _bypass(program.graph, node)
    return [f"{len(removed)} dropout node{'s'[: len(removed) - 1]} removed"] if removed else []


def without_softmax(program: Any) -> list[str]:
    """Remove a softmax that gives the output: probabilities become logits, which attacks and margins need."""
    graph = program.graph
    for last in [node for node in graph.node if graph.output[0].name in node.output]:
        if last.op_type in AFTER_LOGITS:
            graph.output[0].name = last.input[0]
            graph.node.remove(last)
            return [f"the final {last.op_type} removed, so that the network gives logits"]
        if last.op_type == "Identity":
            graph.output[0].name = last.input[0]
            graph.node.remove(last)
            return without_softmax(program)
    return []


def _bypass(graph: Any, node: Any) -> None:
    before, after = node.input[0], node.output[0]
    graph.node.remove(node)
    if graph.output[0].name == after:
        graph.output[0].name = before
    for other in graph.node:
        other.input[:] = [before if name == after else name for name in other.input]


def _shown(kind: Any) -> str:
    from onnx import TensorProto

    sizes = [size.dim_param or (size.dim_value if size.dim_value > 0 else "?") for size in kind.shape.dim]
    return f"{TensorProto.DataType.Name(kind.elem_type).lower()} ({', '.join(map(str, sizes))})"


def _sizes(shape: Any) -> str:
    return "x".join(str(size or "?") for size in shape)
