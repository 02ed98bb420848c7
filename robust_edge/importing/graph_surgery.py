"""Changes to an ONNX graph before it becomes a network: the shape of images is fixed, dropout and softmax removed."""

from __future__ import annotations

import math
from typing import Any

from robust_edge_runtimes.core.errors import InputError

MOST_PIXELS = 1 << 27  # of one batch; two of them are compared in float64
AFTER_LOGITS = ("Softmax", "LogSoftmax")
SAME_VALUES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""What may follow them: it gives their values another shape or type."""
FEW_CHANNELS = (1, 3, 4)


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
            "has one of each: cut out the images and the logits with onnx.utils.extract_model"
        )
    kind = ports[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
        raise InputError(
            f"{path} does not take images as float32 (N, C, H, W); its input is {_shown(kind)}; export it so"
        )
    sizes = [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim]  # some exporters write -1
    own = sizes[1:]
    shape = tuple(size or (wanted[i] if wanted else 0) for i, size in enumerate(own))
    if not all(shape):
        raise InputError(f"{path} takes images of {_sizes(own)}; give `shape`, such as 3x224x224")
    if wanted is not None and shape != tuple(wanted):
        raise InputError(
            f"{path} takes images of {_sizes(own)}, given are images of {_sizes(wanted)}; use others "
            "(data.dataset), change them with data.resize, data.crop or data.channels, or correct `shape`"
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


def with_channels_first(program: Any, wanted: tuple[int, ...] | None) -> list[str]:
    """Let a graph of images (N, H, W, C), as those of TensorFlow are, take (N, C, H, W).

    Args:
        program: changed in place where its input is of the wanted shape (C, H, W) in that order only.
        wanted: None for what the file says: a last size of 1, 3 or 4 is that of channels, unless the first is, too.
    """
    from onnx import helper

    graph = program.graph
    known = {item.name for item in graph.initializer}
    port = next((port for port in graph.input if port.name not in known), None)
    dims = [] if port is None else port.type.tensor_type.shape.dim
    own = [size.dim_value for size in dims][1:]
    if wanted is None and len(own) == 3 and min(own) > 0 and own[2] in FEW_CHANNELS and own[0] not in FEW_CHANNELS:
        wanted = (own[2], *own[:2])
    if port is None or wanted is None or not _fits(own, (*wanted[1:], wanted[0])) or _fits(own, wanted):
        return []
    images, last = port.name, f"{port.name}_channels_last"
    for node in graph.node:
        turned = node.op_type == "Transpose" and [list(item.ints) for item in node.attribute] == [[0, 3, 1, 2]]
        if turned and node.input[0] == images:
            node.CopyFrom(helper.make_node("Identity", [images], node.output, node.name))
        else:
            node.input[:] = [last if name == images else name for name in node.input]
    if any(last in node.input for node in graph.node):
        graph.node.insert(0, helper.make_node("Transpose", [images], [last], last, perm=[0, 2, 3, 1]))
    for size, value in zip(dims[1:], wanted, strict=True):
        size.dim_value = value
    return ["takes images (N, C, H, W) in place of (N, H, W, C)"]


def _fits(own: list[int], wanted: tuple[int, ...]) -> bool:
    return len(own) == len(wanted) and all(size in (other, 0, -1) for size, other in zip(own, wanted, strict=True))


def without_dropout(program: Any) -> list[str]:
    """Remove dropout, which does nothing in inference."""
    read = {name for node in program.graph.node for name in node.input}
    removed = [node for node in program.graph.node if node.op_type == "Dropout" and not read & {*node.output[1:]}]
    for node in removed:
        _bypass(program.graph, node)
    return [f"{len(removed)} dropout node{'s'[: len(removed) - 1]} removed"] if removed else []


def without_softmax(program: Any) -> list[str]:
    """Remove the last softmax, after which nothing is computed: probabilities become logits.

    Attacks and margins need logits. The caller checks that the probabilities are those of the logits.
    """
    graph = program.graph
    nodes = {name: node for node in graph.node for name in node.output}
    name = graph.output[0].name
    while name in nodes and nodes[name].op_type in SAME_VALUES:
        name = nodes.pop(name).input[0]  # a graph of someone else may have a circle
    last = nodes.get(name)
    if last is None or last.op_type not in AFTER_LOGITS or sum(name in node.input for node in graph.node) > 1:
        return []
    _bypass(graph, last)
    return [f"the final {last.op_type} removed, so that the network gives logits"]


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
