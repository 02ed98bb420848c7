"""Make the shapes in a graph constant but for the number of images.

Exporters write shapes as small computations on the shape of the images, or as constants for the one batch that they
were given. Their values are read from a run of the graph with two batch sizes.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from robust_edge.importing.reference import run_graph
from robust_edge_runtimes.core.errors import InputError

SHAPES = {"Shape", "Size"}
FOLLOW = {"Expand": 1, "Resize": 0}
"""Operators with what stands for any number of images in their sizes."""
AXES_AS_INPUT = 13
"""The opset from which Squeeze reads its axes from an input."""


def with_constant_shapes(program: Any, shape: tuple[int, ...], batch: int | None) -> Any:
    """A copy of a program that computes no shapes and takes any number of images.

    Args:
        program: its input is (N, C, H, W).
        shape: (C, H, W).
        batch: the number of images that the file was written for; None for any.

    Raises:
        InputError: a shape depends on the number of images in a way that no constant gives.
    """
    from onnx import ModelProto, numpy_helper

    changed = ModelProto()
    changed.CopyFrom(program)
    constants = _constants(changed)
    derived, fixed = _derived(changed, set(constants))
    places = ((node, place) for node in changed.graph.node for place in range(len(node.input)))
    reads = [(node, place) for node, place in places if _reads(node, place, derived, fixed, batch)]
    if not reads:
        return changed
    names = sorted({name for node, place in reads for name in (node.input[place], node.input[0])})
    seen = _observed(program, names, shape, batch, constants)
    for number, (node, place) in enumerate(reads):
        values, data = ([one[name] for one in seen] for name in (node.input[place], node.input[0]))
        value = _constant(node, place, values, data, batch)
        node.input[place] = f"constant_shape_{number}"
        changed.graph.initializer.append(numpy_helper.from_array(value, node.input[place]))
    return changed


def with_constant_squeezes(program: Any, shape: tuple[int, ...], batch: int | None) -> Any:
    """A copy of a program whose Squeeze nodes name their axes: without, they drop that of the images for one image.

    Args:
        program: as for `with_constant_shapes`.
        shape, batch: the same.
    """
    from onnx import ModelProto, helper, numpy_helper

    changed = ModelProto()
    changed.CopyFrom(program)
    nodes = [node for node in changed.graph.node if node.op_type == "Squeeze" and not any(node.input[1:])]
    nodes = [node for node in nodes if not node.attribute]
    if not nodes:
        return changed
    opset = max(item.version for item in program.opset_import if item.domain in ("", "ai.onnx"))
    seen = _observed(program, sorted({node.input[0] for node in nodes}), shape, batch, {})
    for node in nodes:
        sizes = seen[-1][node.input[0]].shape
        axes = [axis for axis, size in enumerate(sizes) if size == 1 and (axis or batch != 1)]
        if opset < AXES_AS_INPUT:
            node.attribute.append(helper.make_attribute("axes", axes))
        else:
            name = f"{node.output[0]}_axes"
            node.input[1:] = [name]
            changed.graph.initializer.append(numpy_helper.from_array(np.array(axes), name))
    return changed


def with_constant_branches(program: Any, shape: tuple[int, ...], batch: int | None) -> Any:
    """A copy of a program with one branch in place of each If whose condition is a constant or follows from shapes.

    Args:
        program: as for `with_constant_shapes`.
        shape, batch: the same.
    """
    from onnx import ModelProto, helper

    changed = ModelProto()
    changed.CopyFrom(program)
    nodes = changed.graph.node
    while True:
        constants = _constants(changed)
        known = set[str]().union(*_derived(changed, set(constants)))
        place = next((i for i, node in enumerate(nodes) if node.op_type == "If" and node.input[0] in known), None)
        if place is None:
            return changed
        node = nodes.pop(place)
        name = node.input[0]
        values = {bool(seen[name]) for seen in _observed(program, [name], shape, batch, constants)}
        if len(values) > 1:
            raise InputError(f"operator If of node {node.name!r} depends on the number of images; export it for one")
        wanted = "then_branch" if values.pop() else "else_branch"
        branch = next(item.g for item in node.attribute if item.name == wanted)
        ends = zip(branch.output, node.output, strict=True)
        inside = [*branch.node, *(helper.make_node("Identity", [end.name], [own]) for end, own in ends)]
        for offset, item in enumerate(inside):
            nodes.insert(place + offset, item)
        changed.graph.initializer.extend(branch.initializer)


def _constants(program: Any) -> dict[str, Any]:
    """The initializers and Constant nodes by the name of their value."""
    found = {item.name: item for item in program.graph.initializer}
    return {**found, **{node.output[0]: node for node in program.graph.node if node.op_type == "Constant"}}


def _derived(program: Any, constants: set[str]) -> tuple[set[str], set[str]]:
    """Names of the values that depend on shapes only, and of those that depend on constants only."""
    derived: set[str] = set()
    fixed = set(constants)
    for node in program.graph.node:
        given = [name for name in node.input if name]
        if any(item.HasField("g") for item in node.attribute):
            continue  # a branch or a loop, which may read any value of the graph
        of_shapes = any(name in derived for name in given) and all(name in derived or name in fixed for name in given)
        if node.op_type in SHAPES or of_shapes:
            derived |= set(node.output)
        elif given and all(name in fixed for name in given):
            fixed |= set(node.output)
    return derived, fixed


def _reads(node: Any, place: int, derived: set[str], fixed: set[str], batch: int | None) -> bool:
    """Whether a node that depends on the images reads a shape, or the constant shape of one batch, at this place."""
    name = node.input[place]
    if all(own in derived for own in node.output):
        return False
    return name in derived or (batch is not None and node.op_type == "Reshape" and place == 1 and name in fixed)


def _observed(
    program: Any, names: list[str], shape: tuple[int, ...], batch: int | None, constants: dict[str, Any]
) -> list[dict[str, np.ndarray]]:
    """The values of these names for one or two batch sizes."""
    stored = {name: _stored(constants[name]) for name in names if name in constants}
    asked = [name for name in names if name not in stored]
    seen = []
    for count in (2, 3) if batch is None else (batch,):
        values = run_graph(program, np.zeros((count, *shape), np.float32), asked) if asked else []
        seen.append({**stored, **dict(zip(asked, values, strict=True))})
    return seen


def _stored(constant: Any) -> np.ndarray:
    """The value of an initializer or of a Constant node."""
    from onnx import helper, numpy_helper

    if hasattr(constant, "dims"):
        return numpy_helper.to_array(constant)  # type: ignore[no-any-return]
    value = helper.get_attribute_value(constant.attribute[0])
    return numpy_helper.to_array(value) if hasattr(value, "dims") else np.array(value)


def _constant(node: Any, place: int, values: list[np.ndarray], data: list[np.ndarray], batch: int | None) -> np.ndarray:
    first = np.array(values[0])
    if node.op_type == "Reshape" and place == 1:
        return _reshape(node, values, [x.shape for x in data], batch)
    if all(np.array_equal(first, other) for other in values):
        return first
    if node.op_type in FOLLOW and first.ndim == 1 and all(np.array_equal(first[1:], other[1:]) for other in values):
        return np.array([FOLLOW[node.op_type], *first[1:]])
    one = [_of_one_image(value, other) for value, other in itertools.pairwise(values)]
    if len(one) == 1 and one[0] is not None:
        return one[0]  # Concat, arithmetic and recurrent layers broadcast it over the images
    raise InputError(
        f"operator {node.op_type} of node {node.name!r} takes a shape that depends on the number of images; export the "
        "network for one image"
    )


def _of_one_image(value: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """The part of a tensor for one image, where it only repeats that along an axis; None for another tensor."""
    axes = [axis for axis, (a, b) in enumerate(zip(value.shape, other.shape, strict=False)) if a != b]
    if value.ndim != other.ndim or len(axes) != 1:
        return None
    part = value.take([0], axes[0])
    return part if all(np.array_equal(np.broadcast_to(part, whole.shape), whole) for whole in (value, other)) else None


def _reshape(node: Any, values: list[np.ndarray], shapes: list[tuple[int, ...]], batch: int | None) -> np.ndarray:
    """Sizes that follow the number of images become 0, which copies the input's, or -1."""
    wanted = np.array(values[0])
    follows = [i for i in range(len(wanted)) if any(other[i] != wanted[i] for other in values)]
    if batch is not None:
        follows = [0] if len(wanted) and shapes[0][:1] == (batch,) and wanted[0] > 0 and wanted[0] % batch == 0 else []
    for attribute in [item for item in node.attribute if item.name == "allowzero"]:
        node.attribute.remove(attribute)  # with it, 0 would not copy
    for i in follows:
        if all(i < len(shape) and shape[i] == value[i] for shape, value in zip(shapes, values, strict=True)):
            wanted[i] = 0
        elif -1 not in wanted:
            wanted[i] = -1
        else:
            raise InputError(f"Reshape of node {node.name!r} takes a shape that depends on the number of images")
    return wanted
