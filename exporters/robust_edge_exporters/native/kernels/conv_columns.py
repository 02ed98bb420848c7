"""Kernel `columns`: filters with three columns. Input is read unshifted, and one sum per filter column is shifted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robust_edge_exporters.native.geometry import PADDING_ROWS, UNIT, Shape, Window, layout, tile_rows
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.convolution import LENGTH_MULTIPLE, SparseConvKernel, blocks_of
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

COLUMNS_FLOATS = 128  # pixels of a tile: two sums of 8 AVX-512 accumulators
PAIRED_PIXELS = (16, 32, 48, 64)  # of a plane with rows of half a unit


@dataclass(frozen=True)
class ColumnsTiling(Tiling):
    """The loop sizes of `columns`.

    Attributes:
        padding_floats: if the input is read in place, floats of padding above a tile's first row, where offsets start.
        pair_distance: pixels between the two rows that share a packed unit; 0: units are consecutive pixels.
    """

    padding_floats: int = 0
    pair_distance: int = 0


class ConvColumns(SparseConvKernel):
    """Nonzeros are stored in one segment per output channel and filter column; offsets are in units."""

    name = "columns"

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """Filters with three columns; output rows of one or two units, or of half a unit in planes of whole units."""
        window, stride = op.window, op.window.strides[0]
        shifts_by_one = window.kernel[1] == 3 and window.dilations[1] == 1 and window.pads[1] == 1
        rows = output.width in (UNIT, 2 * UNIT) or (output.width == UNIT // 2 and output.pixels in PAIRED_PIXELS)
        exact = window.strides in ((1, 1), (2, 2)) and source.width == stride * output.width
        fits = shifts_by_one and rows and exact
        return fits and self.tile(op, source, output, options).channel_offset <= OFFSETS

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> ColumnsTiling:
        """Tiles whose input is read in place or packed, in blocks of channels of nearly equal size.

        Rows of whole units are read in place if the filter does not reach beyond the padding rows of a plane. Blocks
        then have half the size, since the input comes from the second-level cache. Otherwise the rows are packed for
        each stride phase of a filter row, at stride 2 with even and odd pixels separately. Rows of half a unit are
        packed in pairs, row y next to row y + half of the height, so that a filter row is again a shift by whole units.
        """
        rows, width, window, block_floats = (
            tile_rows(output, COLUMNS_FLOATS),
            output.width,
            op.window,
            options.block_bytes // 4,
        )
        stride, top, pitch = window.strides[0], window.pads[0], layout(source).pitch
        moves = [divmod(y * window.dilations[0], stride) for y in range(window.kernel[0])]
        extra, paired = max(down for down, _ in moves), width < UNIT
        row = UNIT if paired else width
        floats = ((rows // 2 if paired else rows) + extra) * row
        below = output.height + extra - top - source.height
        if stride == 1 and not paired and top <= PADDING_ROWS and below <= PADDING_ROWS:
            block = even_block(op.weight.shape[1], min(block_floats // 2 // floats, OFFSETS // (pitch // UNIT)))
            return ColumnsTiling(
                rows, extra, 1, block, (), 0,
                whole_plane=False, masked=False, tap_offsets=tuple(down * row // UNIT for down, _ in moves),
                channel_offset=pitch // UNIT, scratch_floats=0, padding_floats=top * width,
                reads_padding_rows=top > 0 or below > 0,
            )  # fmt: skip
        tops = [phase - top for _, phase in moves]
        copies = sorted({(top, x) for top in tops for x in range(stride)})
        channel = len(copies) * floats
        block = even_block(op.weight.shape[1], min(block_floats, OFFSETS * UNIT) // channel)
        offsets = (
            (copies.index((top, x)) * floats + down * row) // UNIT
            for top, (down, _) in zip(tops, moves, strict=True)
            for x in range(stride)
        )
        return ColumnsTiling(
            rows, extra, 1, block, tuple(copies), floats,
            whole_plane=False, masked=False, tap_offsets=tuple(offsets), channel_offset=channel // UNIT,
            scratch_floats=block * channel, pair_distance=output.pixels // 2 if paired else 0,
        )  # fmt: skip

    def pack(self, packer: Packer, op: Conv, tiling: Tiling) -> Sections:
        """Segments in the order group, block, output channel, filter column; within a segment by channel, then row.

        At stride 2 an output channel has two segments, one for the first column and one for the other two; within them
        by channel, row, then even and odd pixels. Segments of paired rows are padded.
        """
        assert isinstance(tiling, ColumnsTiling)
        blocks, count = blocks_of(op, tiling)
        by_column = [block.transpose(0, 3, 1, 2) for block in blocks]
        if segments_per_channel(op.window) == 2:
            first = [np.stack([np.zeros_like(b[:, 0]), b[:, 0]], axis=-1) for b in by_column]
            others = [np.stack([b[:, 1], b[:, 2]], axis=-1) for b in by_column]
            by_column = [np.stack(pair, axis=1) for pair in zip(first, others, strict=True)]
        return pack_segments(
            packer, op.bias, [b.reshape(b.shape[0] * b.shape[1], -1) for b in by_column],
            blocks_per_group=count, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
            multiple=LENGTH_MULTIPLE if tiling.pair_distance else 1,
        )  # fmt: skip

    def own_fields(self, tiling: Tiling) -> dict[str, object]:
        """Where the rows of a tile lie, beyond what every kernel has."""
        assert isinstance(tiling, ColumnsTiling)
        return {"padding_floats": tiling.padding_floats, "pair_distance": tiling.pair_distance}

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """The C function, which is compiled for each width and number of segments, and each size of register tile."""
        assert isinstance(layer.op, Conv)
        width, segments = layer.output.width, segments_per_channel(layer.op.window)
        program.instances.add(f"COLUMNS_KERNEL({width}, {segments})")
        program.register_tiles(f"COLUMNS_{width}_{segments}", tiling, layer.output, step=max(1, width // UNIT))
        return f"conv_columns_{width}_{segments}"


def even_block(channels: int, most: int) -> int:
    """Number of channels per block, at most `most`, for which all blocks have nearly equal sizes."""
    return math.ceil(channels / math.ceil(channels / max(1, min(channels, most))))


def segments_per_channel(window: Window) -> int:
    """Number of segments per output channel: one per filter column, but at stride 2 the unshifted columns share one."""
    return 3 if window.strides == (1, 1) else 2


KERNEL = ConvColumns()
