"""Make the plan of a graph: the position of each tensor in the arena, and the kernel and tiling of each operator."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import UNIT, Shape, Tensor, layout, padding_floats, tile_rows, whole_units
from robust_edge_exporters.native.int8.ops import Quantise
from robust_edge_exporters.native.joined import join, scratch_floats
from robust_edge_exporters.native.kernel import Kernel, Layer, Options
from robust_edge_exporters.native.kernels.convolution import GUARD_FLOATS
from robust_edge_exporters.native.kernels.table import KERNELS
from robust_edge_exporters.native.operators.affine import Affine


@dataclass(frozen=True)
class Plan:
    """A network that is ready for packing its weights and emitting its C code."""

    options: Options
    image: Shape  # of the caller's images
    input: Tensor
    output: Tensor
    reader: Affine | Quantise | None  # applied while the images are read
    layers: tuple[Layer, ...]
    arena_floats: int
    scratch_floats: int

    @property
    def operators(self) -> list[range]:
        """The layers of each operator of the generated network, by their indices; several if they are joined."""
        return operators(self.layers)


def make_plan(graph: ir.Graph, options: Options) -> Plan:
    """Place the tensors and choose the kernels."""
    first = graph.ops[0] if graph.ops else None
    image, alone = graph.shapes[graph.input], len(graph.readers[graph.input]) == 1
    reader = first if isinstance(first, (Affine, Quantise)) and alone else None
    if reader is not None:
        graph = replace(graph, input=reader.output, ops=graph.ops[1:])
    unplaced = {name: layout(shape) for name, shape in graph.shapes.items()}
    layers = join([make_layer(op, graph, unplaced, options) for op in graph.ops], graph, options)
    tensors, arena = place(graph, options.images, layers)
    layers = tuple(
        replace(layer, inputs=tuple(tensors[name] for name in layer.op.reads), output=tensors[layer.op.output])
        for layer in layers
    )
    scratch = [layer.tiling.scratch_floats for layer in layers if layer.tiling]
    scratch += [
        scratch_floats(layers[group.start : group.stop], graph.shapes[layers[group.start].op.output])
        for group in operators(layers)
        if len(group) > 1
    ]
    return Plan(
        options,
        image,
        tensors[graph.input],
        tensors[graph.output],
        reader,
        layers,
        arena,
        whole_units(max(scratch, default=0)) + 2 * UNIT,
    )


def operators(layers: Sequence[Layer]) -> list[range]:
    """The layers of each operator of the generated network, by their indices."""
    starts = [index for index, layer in enumerate(layers) if not layer.joined]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(layers)], strict=True)]


@dataclass
class Slot:
    """Tensors that use the same memory one after the other, and the first and last operator that need it."""

    names: list[str]
    first: int
    last: int


def slots(graph: ir.Graph, layers: Sequence[Layer]) -> list[Slot]:
    """Group tensors by memory: an output uses that of the tensor that it overwrites, if no later operator reads it.

    Layers that are joined are one operator; the tensor between the convolutions among them has no memory of its own.
    """
    last, groups = {graph.input: -1}, operators(layers)
    numbers = [number for number, group in enumerate(groups) for _ in group]
    for index, op in zip(numbers, graph.ops, strict=True):
        last.update(dict.fromkeys((*op.reads, op.output), index))
    last[graph.output] = len(graph.ops)
    found = {graph.input: Slot([graph.input], -1, last[graph.input])}
    firsts = {number: graph.ops[group.start] for number, group in enumerate(groups) if len(group) > 1}
    between = {op.output for op in firsts.values()}
    read_to_the_end = {(number, name) for number, op in firsts.items() for name in op.reads}
    for index, op in zip(numbers, graph.ops, strict=True):
        if op.output in between:
            continue
        old = op.overwrites
        overwritten = old is not None and last[old] == index and (index, old) not in read_to_the_end
        if old is not None and overwritten and tiles_write_only_their_pixels(graph.shapes[op.output]):
            slot = found[old]
            slot.names.append(op.output)
            slot.last = last[op.output]
        else:
            slot = Slot([op.output], index, last[op.output])
        found[op.output] = slot
    return list({id(slot): slot for slot in found.values()}.values())


def tiles_write_only_their_pixels(output: Shape) -> bool:
    """Whether tiles write no pixels beyond their own, so that an output may overwrite its residual.

    Kernels with other tiles process whole planes, or rows of half a unit, one unit or two units.
    """
    rows = tile_rows(output)
    return rows == output.height or rows * output.width % UNIT == 0


def place(graph: ir.Graph, images: int, layers: Sequence[Layer]) -> tuple[dict[str, Tensor], int]:
    """First-fit allocation: each tensor, with the padding rows before it, at the lowest address free all its life.

    Tensors begin at a multiple of their pitch. The rows of a thread are then where its rows of earlier tensors with
    planes of that size were, and no other core has them in its caches.
    """
    placed: list[tuple[int, int, Slot]] = []  # address, end; sorted
    tensors = {name: layout(shape) for name, shape in graph.shapes.items()}
    for new in slots(graph, layers):
        shape = graph.shapes[new.names[0]]
        tensor, lead = layout(shape), padding_floats(shape)
        size, address = lead + tensor.image * images, GUARD_FLOATS
        for begin, end, old in placed:
            overlap = old.first <= new.last and new.first <= old.last
            if overlap and begin < address + size and address < end:
                address = GUARD_FLOATS + -(-(end - GUARD_FLOATS) // tensor.pitch) * tensor.pitch
        insort(placed, (address, address + size, new), key=lambda entry: entry[:2])
        tensors.update(dict.fromkeys(new.names, replace(tensor, offset=address + lead)))
    return tensors, max(end for _, end, _ in placed) + GUARD_FLOATS


def make_layer(op: ir.Op, graph: ir.Graph, tensors: dict[str, Tensor], options: Options) -> Layer:
    """Choose the kernel and the tiling of one operator."""
    inputs, output = tuple(tensors[name] for name in op.reads), tensors[op.output]
    if not isinstance(op, ir.Weighted):
        return Layer(op, inputs, output)
    source, target = graph.shapes[op.inputs[0]], graph.shapes[op.output]
    kernel = choose(op, source, target, options)
    return Layer(op, inputs, output, kernel, kernel.tile(op, source, target, options))


def choose(op: ir.Weighted, source: Shape, output: Shape, options: Options) -> Kernel[Any, Any]:
    """The suitable kernel with the smallest cost, of the family in `options` if that has a suitable one.

    Of several kernels with the same cost the first in the table is chosen.
    """
    suiting = [k for k in KERNELS if isinstance(op, k.operator) and k.suits(op, source, output, options)]
    asked = [k for k in suiting if options.kernel is None or k.family in (None, options.kernel)]
    return min(asked or suiting, key=lambda kernel: kernel.cost(op, output))
