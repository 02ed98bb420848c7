"""Kernel `strips`: filters with several columns at stride 1 or 2. One copy of each input row serves all columns."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import TILE_FLOATS, UNIT, Shape, Window, layout, whole_units
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.conv_columns import even_block
from robust_edge_exporters.native.kernels.convolution import LENGTH_MULTIPLE, SparseConvKernel, blocks_of
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

ROW_UNITS_MAX = c_constant("pack_strips.h", "ROW_UNITS_MAX")
PART_PIXELS, PART_ROWS = c_constant("job.h", "PART_PIXELS"), c_constant("job.h", "PART_ROWS")  # of a thread, at least
HALF = UNIT // 2  # floats of a row that shares a unit
FULLEST = 0.7  # fraction of the lanes of packed rows that must be pixels
UNITS_IN_PLACE = 8  # of a tile that is read in place: fewer lines of the second-level cache per tile than at 16
MANY_CHANNELS, UNITS_OF_MANY = 128, 4  # with so many input channels tiles of 8 leave the first-level cache
CHANNELS_IN_PLACE = 256  # of a block: its pages of memory are few enough for the translation buffer (TLB)
PAIRED_COST = 0.75  # of paired rows, in times of tiles of this size read from the second-level cache


@dataclass(frozen=True)
class StripsTiling(Tiling):
    """The loop sizes of `strips`.

    Attributes:
        columns: output columns of a tile.
        row_units: units of a packed row.
        segments: number of different shifts of the filter's columns in output pixels, from the leftmost on.
        paired: whether units hold two rows; tiles are whole planes then, and `rows` counts pairs.
    """

    columns: int = 0
    row_units: int = 0
    segments: int = 0
    paired: bool = False


@dataclass(frozen=True)
class Phases:
    """One dimension of a filter: tap k reads pixel `stride * (x + shift) + phase` for output pixel x.

    Attributes:
        taps: (shift, phase) of each tap.
        stride: of the window.
    """

    taps: tuple[tuple[int, int], ...]
    stride: int

    @property
    def first(self) -> int:
        """Smallest shift."""
        return min(shift for shift, _ in self.taps)

    @property
    def count(self) -> int:
        """Number of shifts from the smallest to the largest."""
        return max(shift for shift, _ in self.taps) - self.first + 1

    @property
    def used(self) -> list[int]:
        """The phases that taps read, ascending."""
        return sorted({phase for _, phase in self.taps})

    def start(self, phase: int) -> int:
        """The input pixel of a phase that the smallest shift reads for output pixel 0."""
        return self.stride * self.first + phase


def phases(window: Window, axis: int) -> Phases:
    """The rows (axis 0) or columns (axis 1) of a filter."""
    stride, pad, dilation = window.strides[axis], window.pads[axis], window.dilations[axis]
    return Phases(tuple(divmod(k * dilation - pad, stride) for k in range(window.kernel[axis])), stride)


def plain(window: Window) -> bool:
    """Whether a convolution computes each pixel from the same pixel of the input."""
    return window.kernel == (1, 1) and window.strides == (1, 1) and not any(window.pads)


def unrolled(window: Window, output: Shape) -> Shape:
    """The shape of an output; rows of one unit, of which the last may go beyond the plane, if the window is plain."""
    return replace(output, height=-(-output.pixels // UNIT), width=UNIT) if plain(window) else output


def strips(width: int, extra: int) -> list[tuple[int, int]]:
    """The ways to split rows of `width` output columns into strips with the fewest floats in all, widest strips first.

    Each is the output columns of a strip, and the floats of its packed rows, which hold `extra` columns more.
    """
    sizes: dict[int, list[tuple[int, int]]] = {}
    for tiles in range(1, width + 1):
        columns = math.ceil(width / tiles)
        floats = whole_units(columns + extra)
        if floats <= ROW_UNITS_MAX * UNIT:
            sizes.setdefault(math.ceil(width / columns) * floats, []).append((columns, floats))
    return sizes[min(sizes)]


def pairs_of(output: Shape) -> Shape:
    """The shape of an output whose rows share units: row y and row y + pairs."""
    return replace(output, height=math.ceil(output.height / 2), width=UNIT)


def suits_pairs(window: Window, source: Shape, output: Shape) -> bool:
    """Whether two rows of a small plane can share a unit.

    Pixels to the right of the first row's half are then the zeros to the left of the second row.
    """
    columns, stride = phases(window, 1), window.strides[1]
    beyond = output.width + columns.count - 1 - HALF
    starts = [columns.start(phase) for phase in columns.used]
    zeros = all(start + HALF * stride >= source.width and -(start // stride) >= beyond for start in starts)
    units = pairs_of(output).height
    full = output.width < HALF and units * UNIT <= TILE_FLOATS and output.pixels >= FULLEST * units * UNIT
    return full and not plain(window) and (beyond <= 0 or zeros)


class ConvStrips(SparseConvKernel):
    """Nonzeros are stored in one segment per output channel and shift of a column; offsets are in units."""

    name = "strips"

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """Filters of several columns or plain ones, and rows that fill their units; not depthwise."""
        extra, paired = phases(op.window, 1).count - 1, suits_pairs(op.window, source, output)
        output = unrolled(op.window, output)
        several = plain(op.window) or 0 < extra < UNIT
        if op.window.strides not in ((1, 1), (2, 2)) or not several or op.weight.shape[1] == 1:
            return False
        columns, floats = strips(output.width, extra)[0]
        full = output.width >= FULLEST * math.ceil(output.width / columns) * floats
        return (full or paired) and self.tile(op, source, output, options).channel_offset <= OFFSETS

    def cost(self, op: Conv, output: Shape) -> float:
        """Estimated time; less for planes of paired rows, since other kernels read them from the second-level cache."""
        paired = output.width < HALF and not plain(op.window)
        return (PAIRED_COST if paired else 1) * super().cost(op, output)

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> StripsTiling:
        """The widest tiles that fill the registers and need one block of channels; else narrow, small ones.

        A block's packed rows have 5/8 of `options.block_bytes`, since they are read from the first-level cache (at
        stride 2, where a pixel is read by fewer taps, all of them). Wide
        tiles store long parts of a row, narrow ones have more rows and share more of the rows around them. In smaller
        tiles blocks have more channels, and fewer sums are stored between them. Convolutions that need no packing read
        their input in place, in blocks of some hundred channels.
        """
        if plain(op.window):
            return self.tile_in_place(op, source, output)
        if suits_pairs(op.window, source, output):
            tiling = self.tile_packed(op, pairs_of(output), options, (output.width, UNIT), TILE_FLOATS)
            return replace(tiling, paired=True)
        sizes = strips(output.width, phases(op.window, 1).count - 1)
        for size in sizes:
            tiling = self.tile_packed(op, output, options, size, TILE_FLOATS)
            if tiling.block == op.weight.shape[1]:
                return tiling
        return self.tile_packed(op, output, options, sizes[-1], TILE_FLOATS // 2)

    def tile_in_place(self, op: Conv, source: Shape, output: Shape) -> StripsTiling:
        """Tiles of consecutive units of a plane."""
        height, pitch, inputs = unrolled(op.window, output).height, layout(source).pitch // UNIT, op.weight.shape[1]
        units = UNITS_IN_PLACE if inputs < MANY_CHANNELS else UNITS_OF_MANY
        rows = math.ceil(height / math.ceil(height / units))
        block = even_block(inputs, min(CHANNELS_IN_PLACE, OFFSETS // pitch))
        return StripsTiling(
            rows, 0, 1, block, (), 0,
            whole_plane=False, masked=False, tap_offsets=(0,), channel_offset=pitch,
            scratch_floats=self.sums(op, block, rows * UNIT), columns=UNIT, row_units=1, segments=1,
        )  # fmt: skip

    def tile_packed(self, op: Conv, output: Shape, options: Options, size: tuple[int, int], most: int) -> StripsTiling:
        """Tiles of at most `most` floats in strips of a `size`, in blocks of channels of nearly equal size."""
        vertical, horizontal = phases(op.window, 0), phases(op.window, 1)
        columns, floats = size
        rows = math.ceil(output.height / math.ceil(output.height / max(1, most // floats)))
        copies = tuple(itertools.product(vertical.used, horizontal.used))
        copy = (rows + vertical.count - 1) * floats
        channel, inputs = len(copies) * copy, op.weight.shape[1]
        budget = options.block_bytes // 4 if len(copies) > 1 else options.block_bytes * 5 // 32  # floats
        block = even_block(inputs, min(budget, OFFSETS * UNIT) // channel)
        offsets = (
            (copies.index((phase, x)) * copy + (shift - vertical.first) * floats) // UNIT
            for shift, phase in vertical.taps
            for x in horizontal.used
        )
        return StripsTiling(
            rows, vertical.count - 1, 1, block,
            tuple((vertical.start(y), horizontal.start(x)) for y, x in copies), copy,
            whole_plane=False, masked=False, tap_offsets=tuple(offsets), channel_offset=channel // UNIT,
            scratch_floats=block * channel + self.sums(op, block, rows * floats),
            columns=columns, row_units=floats // UNIT, segments=horizontal.count,
        )  # fmt: skip

    @staticmethod
    def sums(op: Conv, block: int, floats: int) -> int:
        """Floats of the sums between blocks of a tile of `floats` pixels; none if there is one block only."""
        return len(op.weight) // op.groups * floats if block < op.weight.shape[1] else 0

    def pack(self, packer: Packer, op: Conv, tiling: Tiling) -> Sections:
        """Segments in the order group, block, output channel, shift, the largest first.

        Within a segment they are in the order channel, row of the filter, phase. Those of paired rows are padded.
        """
        assert isinstance(tiling, StripsTiling)
        blocks, count = blocks_of(op, tiling)
        return pack_segments(
            packer, op.bias, [by_shift(block, phases(op.window, 1)) for block in blocks],
            blocks_per_group=count, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
            multiple=LENGTH_MULTIPLE if tiling.paired else 1,
        )  # fmt: skip

    def table(self, program: Program, name: str, layer: Layer, sections: Sections) -> ir.Call:
        """The call, with the planes of a 1x1 convolution in rows of one unit."""
        assert isinstance(layer.op, Conv)
        shape = unrolled(layer.op.window, Shape(1, layer.output.height, layer.output.width))
        if plain(layer.op.window):
            source, *others = layer.inputs
            output = replace(layer.output, height=shape.height, width=shape.width)
            source = replace(source, height=shape.height, width=shape.width)
            layer = replace(layer, inputs=(source, *others), output=output)
        return super().table(program, name, layer, sections)

    def own_fields(self, tiling: Tiling) -> dict[str, object]:
        """Tiles of columns, and their packed rows."""
        assert isinstance(tiling, StripsTiling)
        return {
            "columns": tiling.columns,
            "row_units": tiling.row_units,
            "segments": tiling.segments,
            "paired": int(tiling.paired),
        }

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """The C function, which is compiled for each size of register tile."""
        assert isinstance(tiling, StripsTiling)
        assert isinstance(layer.op, Conv)
        output = unrolled(layer.op.window, Shape(1, layer.output.height, layer.output.width))
        program.tile_sizes("STRIPS", lambda most: strip_units(tiling, output, most))
        return "conv_strips"


def strip_units(tiling: StripsTiling, output: Shape, most: int) -> set[int]:
    """The sizes in units of the register tiles of a layer, for one thread to four and whatever the number of images.

    More threads may split planes into other parts; for these there is the size of one row.

    Args:
        tiling: of the layer; conv_strips.h splits tiles in the same way.
        output: of the layer, in the rows that the tiling counts.
        most: largest number of units of a register tile, one of `REGISTER_TILE_UNITS`.
    """
    units = tiling.row_units
    planes = {tiling.rows} if tiling.paired else {rows for threads in range(1, 5) for rows in shares(output, threads)}
    bands = {band for rows in planes for band in even_parts(rows, tiling.rows)}
    return {units} | {rows * units for band in bands for rows in even_parts(band, max(1, most // units))}


def shares(output: Shape, threads: int) -> set[int]:
    """The rows of a plane that threads compute: nearly equal parts, if these are not too small (job.h)."""
    if threads > 1 and (output.height < PART_ROWS * threads or output.pixels < PART_PIXELS * threads):
        return set()
    return {output.height // threads, math.ceil(output.height / threads)}


def even_parts(count: int, most: int) -> set[int]:
    """The sizes of the fewest nearly equal parts of `most` or less."""
    parts = math.ceil(count / most)
    return {count // parts, math.ceil(count / parts)}


def by_shift(block: ir.Array, columns: Phases) -> ir.Array:
    """(segments, positions) of a block (output channels, channels, rows, columns): by output channel, then shift."""
    outputs, channels, rows, _ = block.shape
    used = columns.used
    segments = np.zeros((outputs, columns.count, channels, rows, len(used)), np.float32)
    for index, (shift, phase) in enumerate(columns.taps):
        segments[:, columns.first + columns.count - 1 - shift, :, :, used.index(phase)] = block[..., index]
    return segments.reshape(outputs * columns.count, -1)


KERNEL = ConvStrips()
