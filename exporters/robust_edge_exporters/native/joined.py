"""Layers that are computed together: a 1x1 convolution, the depthwise one behind it, and the mean of its planes.

A plane of the depthwise convolution depends on one plane that it reads, and a mean on one plane of that. A few channels
at a time, the planes between the two convolutions stay in the second-level cache, and threads need not wait for each
other (csrc/expand_depthwise.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, layout, whole_units
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.conv_depthwise import ConvDepthwise
from robust_edge_exporters.native.kernels.conv_depthwise_rows import ConvDepthwiseRows
from robust_edge_exporters.native.kernels.conv_strips import ConvStrips, plain
from robust_edge_exporters.native.kernels.convolution import GUARD_FLOATS, ConvKernel
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.operators.mean import Mean
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.weights import Sections

PART_FLOATS = 32 * 1024  # of the planes between the convolutions at a time


def join(layers: Sequence[Layer], graph: ir.Graph, options: Options) -> tuple[Layer, ...]:
    """The layers of a graph, of which those that are computed together with the one before are marked."""
    found: list[Layer] = []
    for index, layer in enumerate(layers):
        before = found[-1] if found else None
        joins = before is not None and (
            (
                expands(before, layer, graph, index)
                and planes_bytes(graph.shapes[before.op.output]) >= options.join_bytes
            )
            or (before.joined and before.kernel is not None and is_mean_of(layer, before))
        )
        found.append(replace(layer, joined=joins))
    return tuple(found)


def expands(expand: Layer, layer: Layer, graph: ir.Graph, index: int) -> bool:
    """Whether the depthwise `layer`, operator `index`, alone reads the output of a 1x1 convolution, as its input."""
    op, kernel = expand.op, expand.kernel
    if not isinstance(op, Conv) or not isinstance(kernel, ConvStrips) or not plain(op.window):
        return False
    alone = op.groups == 1 and op.residual is None and graph.readers[op.output] == [index]
    one_block = expand.tiling is not None and expand.tiling.block == op.weight.shape[1]
    depthwise = isinstance(layer.kernel, (ConvDepthwise, ConvDepthwiseRows)) and layer.op.inputs == (op.output,)
    return alone and one_block and depthwise


def is_mean_of(layer: Layer, before: Layer) -> bool:
    """Whether a layer is the mean of each plane of the one before."""
    return isinstance(layer.op, Mean) and layer.op.inputs == (before.op.output,)


def planes_bytes(shape: Shape) -> int:
    """Bytes of all planes of a tensor."""
    return 4 * shape.channels * layout(shape).pitch


def at_a_time(shape: Shape) -> int:
    """Channels of the tensor between the convolutions that are computed at a time."""
    return max(1, PART_FLOATS // layout(shape).pitch)


def first_plane(layers: Sequence[Layer]) -> int:
    """Where the planes between the convolutions begin in a thread's scratch memory."""
    used = max(layer.tiling.scratch_floats for layer in layers if layer.tiling)
    return whole_units(used) + GUARD_FLOATS


def scratch_floats(layers: Sequence[Layer], between: Shape) -> int:
    """Scratch memory of a thread, with room before and behind the planes, since taps are read beyond them."""
    return first_plane(layers) + at_a_time(between) * layout(between).pitch + GUARD_FLOATS


def emit(program: Program, names: Sequence[str], layers: Sequence[Layer], sections: Sequence[Sections | None]) -> None:
    """One call that computes all layers, with the tables of each."""
    for name, layer, weights in zip(names, layers, sections, strict=True):
        if isinstance(layer.kernel, ConvKernel):
            assert weights is not None
            program.declare(name, layer.kernel.table(program, name, layer, weights))
        else:
            (call,) = layer.op.calls(layer.inputs, layer.output)
            program.declare(name, call)
    expand, depthwise, mean = names if len(names) == 3 else (*names, None)
    between = layers[0].output
    fields = {
        "expand": f"&{expand}",
        "depthwise": f"&{depthwise}",
        "mean": "NULL" if mean is None else f"&{mean}",
        "channels": at_a_time(Shape(between.channels, between.height, between.width)),
        "planes": first_plane(layers),
    }
    program.operator(f"{expand}_joined", [ir.Call("expand_depthwise", "expand_depthwise", fields)])
