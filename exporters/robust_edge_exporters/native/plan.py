"""Graph to plan: where each tensor lies in the arena, and how each operator runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from robust_edge_exporters.native import cost, ir
from robust_edge_exporters.native.tiling import (
    GUARD,
    OFFSETS,
    SPARE_ROWS,
    UNIT,
    Tiling,
    tile_columns,
    tile_convolution,
    tile_depthwise,
    tile_rows,
    tile_taps,
    whole_units,
)


class Kernel(enum.Enum):
    """Which loop computes a layer's products."""

    SPARSE = "sparse"
    COLUMNS = "columns"  # sparse, sums by kernel column, for rows of half a unit, one or two
    TAPS = "taps"  # sparse, in place, for small planes
    DEPTHWISE = "depthwise"  # sparse, in place, one channel after the other
    DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller of the export decides."""

    images: int = 4
    block_bytes: int = 64 * 1024
    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or self.block_bytes < 4096:
            raise ValueError(f"images {self.images} must be at least 1, block_bytes {self.block_bytes} at least 4096")
        if self.kernel not in (None, Kernel.SPARSE, Kernel.DENSE):
            asked = getattr(self.kernel, "value", repr(self.kernel))
            raise ValueError(f"kernel {asked}: geometry decides; force Kernel.SPARSE, Kernel.DENSE or nothing")


@dataclass(frozen=True)
class Tensor:
    """One image's tensor in the arena, in floats; images lie `image` floats apart."""

    at: int
    channels: int
    height: int
    width: int
    pitch: int

    @property
    def image(self) -> int:
        """Floats of one image."""
        return whole_units(self.channels * self.pitch)


@dataclass(frozen=True)
class Layer:
    """An operator with its tensors; convolutions and matrices also have a kernel, convolutions a tiling."""

    op: ir.Op
    inputs: tuple[Tensor, ...]
    output: Tensor
    kernel: Kernel | None = None
    tiling: Tiling | None = None
    residual: Tensor | None = None
    flat: bool = False  # the result is a vector of features


@dataclass(frozen=True)
class Plan:
    """Everything that the packer and the emitter need."""

    options: Options
    input: Tensor
    output: Tensor
    normalise: ir.Affine | None  # applied while the input is read
    layers: tuple[Layer, ...]
    arena_floats: int
    scratch_floats: int


def make_plan(graph: ir.Graph, options: Options) -> Plan:
    """Places tensors and chooses kernels; see `Options`."""
    first = graph.ops[0] if graph.ops else None
    normalise = first if isinstance(first, ir.Affine) and len(graph.readers[graph.input]) == 1 else None
    if normalise is not None:
        graph = replace(graph, input=normalise.output, ops=graph.ops[1:])
    tensors, arena = place(graph, options.images)
    layers = tuple(make_layer(op, graph, tensors, options) for op in graph.ops)
    scratch = [layer.tiling.scratch_floats for layer in layers if layer.tiling]
    return Plan(
        options,
        tensors[graph.input],
        tensors[graph.output],
        normalise,
        layers,
        arena,
        whole_units(max(scratch, default=0)) + 2 * UNIT,
    )


def layout(shape: ir.Shape) -> Tensor:
    """A tensor of `shape`, not yet placed.

    Planes whose rows are one or two units have spare rows behind them; planes of whole cache-set periods are skewed by
    a line.
    """
    if shape.flat:
        return Tensor(0, 1, 1, shape.channels, whole_units(shape.channels))
    tile = tile_rows(shape) * shape.width
    last = (shape.pixels - 1) // tile * tile
    pitch = whole_units(last + whole_units(shape.pixels - last))  # the last tile writes whole units, wherever it begins
    pitch += spare_floats(shape)
    return Tensor(0, shape.channels, shape.height, shape.width, pitch + UNIT * (pitch % 256 == 0))


def spare_floats(shape: ir.Shape) -> int:
    """Floats of the spare rows."""
    return SPARE_ROWS * shape.width if not shape.flat and shape.width in (UNIT, 2 * UNIT) else 0


@dataclass
class Slot:
    """Tensors that lie at one place, one after the other, and the first and the last operator that need it."""

    names: list[str]
    first: int
    last: int


def slots(graph: ir.Graph) -> list[Slot]:
    """Who lies together: a convolution's output takes the place of the residual that nobody reads later."""
    last = {graph.input: -1}
    for index, op in enumerate(graph.ops):
        last.update(dict.fromkeys((*ir.reads(op), op.output), index))
    last[graph.output] = len(graph.ops)
    found = {graph.input: Slot([graph.input], -1, last[graph.input])}
    for index, op in enumerate(graph.ops):
        if isinstance(op, ir.Conv) and op.residual and last[op.residual] == index and replaces_residual(op, graph):
            slot = found[op.residual]
            slot.names.append(op.output)
            slot.last = last[op.output]
        else:
            slot = Slot([op.output], index, last[op.output])
        found[op.output] = slot
    return list({id(slot): slot for slot in found.values()}.values())


def replaces_residual(op: ir.Conv, graph: ir.Graph) -> bool:
    """Whether each sum is written where its own residual lies: the input stays, and tiles end with their last pixel.

    Kernels with tiles of their own take whole planes, or rows of half a unit, one or two.
    """
    output = graph.shapes[op.output]
    rows = tile_rows(output)
    return op.residual not in op.inputs and (rows == output.height or rows * output.width % UNIT == 0)


def place(graph: ir.Graph, images: int) -> tuple[dict[str, Tensor], int]:
    """First fit: each tensor, with the spare rows before it, at the lowest address free over its whole life."""
    placed: list[tuple[int, int, Slot]] = []  # address, end
    tensors = {}
    for new in slots(graph):
        shape = graph.shapes[new.names[0]]
        tensor, lead = layout(shape), spare_floats(shape)
        size, at = lead + tensor.image * images, GUARD
        for begin, end, old in sorted(placed, key=lambda entry: entry[:2]):
            overlap = old.first <= new.last and new.first <= old.last
            if overlap and begin < at + size and at < end:
                at = end
        placed.append((at, at + size, new))
        tensors.update(dict.fromkeys(new.names, replace(tensor, at=at + lead)))
    return tensors, max(end for _, end, _ in placed) + GUARD


def make_layer(op: ir.Op, graph: ir.Graph, tensors: dict[str, Tensor], options: Options) -> Layer:
    """Chooses kernel and tiling of one operator."""
    inputs = tuple(tensors[name] for name in op.inputs)
    output = tensors[op.output]
    if isinstance(op, ir.Linear):
        kernel = options.kernel or (Kernel.SPARSE if cost.linear_is_sparse(op) else Kernel.DENSE)
        kernel = kernel if op.weight.shape[1] <= OFFSETS else Kernel.DENSE
        return Layer(op, inputs, output, kernel, flat=True)
    if not isinstance(op, ir.Conv):
        return Layer(op, inputs, output, flat=graph.shapes[op.output].flat)
    residual = tensors[op.residual] if op.residual else None
    source, target = graph.shapes[op.inputs[0]], graph.shapes[op.output]
    kernel = options.kernel or (Kernel.SPARSE if cost.convolution_is_sparse(op, target) else Kernel.DENSE)
    if cost.suits_depthwise(op, source, target):
        return Layer(op, inputs, output, Kernel.DEPTHWISE, tile_depthwise(op, target, inputs[0].pitch), residual)
    if kernel is not Kernel.DENSE and cost.suits_columns(op, source, target):
        tiling = tile_columns(op, source, target, inputs[0].pitch, block_floats=options.block_bytes // 4)
        if tiling.channel_offset <= OFFSETS:
            return Layer(op, inputs, output, Kernel.COLUMNS, tiling, residual)
    if kernel is not Kernel.DENSE and cost.suits_taps(op, source, target):
        tiling = tile_taps(op, target, inputs[0].pitch)
        return Layer(op, inputs, output, Kernel.TAPS, tiling, residual)
    tiling = tile_convolution(
        op,
        source,
        target,
        inputs[0].pitch,
        images=options.images,
        block_floats=options.block_bytes // 4,
        in_place=cost.reads_in_place(op, target),
    )
    return Layer(op, inputs, output, Kernel.DENSE if kernel is Kernel.DENSE else Kernel.SPARSE, tiling, residual)
