"""Kernel `columns`: filters of three columns, input read without a shift, sums shifted once for each column."""

from __future__ import annotations

import math

import numpy as np

from robust_edge_exporters.native.geometry import PADDING_ROWS, UNIT, Shape, Window, layout, tile_rows
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.convolution import SparseConvKernel, blocks_of
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

COLUMNS_FLOATS = 128  # pixels of a tile: two sums of 8 AVX-512 accumulators
PAIRED_PIXELS = (16, 32, 48, 64)  # of a plane with rows of half a unit


class ConvColumns(SparseConvKernel):
    """A segment for each output channel and kernel column; offsets count units."""

    name = "columns"

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """Three columns of taps, rows of one or two units, or planes of whole units in rows of half a unit."""
        window, stride = op.window, op.window.strides[0]
        shifts_by_one = window.kernel[1] == 3 and window.dilations[1] == 1 and window.pads[1] == 1
        rows = output.width in (UNIT, 2 * UNIT) or (output.width == UNIT // 2 and output.pixels in PAIRED_PIXELS)
        exact = window.strides in ((1, 1), (2, 2)) and source.width == stride * output.width
        fits = shifts_by_one and rows and exact
        return fits and self.tile(op, source, output, options).channel_offset <= OFFSETS

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Rows read in place or packed, and blocks of nearly equal size.

        Rows of whole units are read in place where the kernel reaches no further than a plane's padding rows, half a
        block at a time, since what is read first comes from the second-level cache. Otherwise each kernel row's phase
        is packed, at stride 2 for even and odd pixels. Rows of half a unit share units in pairs, half a plane apart, so
        that a kernel row shifts by whole units then, too.
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
            return Tiling(
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
        return Tiling(
            rows, extra, 1, block, tuple(copies), floats,
            whole_plane=False, masked=False, tap_offsets=tuple(offsets), channel_offset=channel // UNIT,
            scratch_floats=block * channel, pair_distance=output.pixels // 2 if paired else 0,
        )  # fmt: skip

    def pack(self, packer: Packer, op: Conv, tiling: Tiling) -> Sections:
        """Segments in the order group, block, output channel, kernel column; within a segment by channel, then row.

        At stride 2 an output channel has two segments, the first column's and the others': by channel, row, then pixel,
        even or odd.
        """
        blocks, count = blocks_of(op, tiling)
        by_column = [block.transpose(0, 3, 1, 2) for block in blocks]
        if segments_per_channel(op.window) == 2:
            first = [np.stack([np.zeros_like(b[:, 0]), b[:, 0]], axis=-1) for b in by_column]
            others = [np.stack([b[:, 1], b[:, 2]], axis=-1) for b in by_column]
            by_column = [np.stack(pair, axis=1) for pair in zip(first, others, strict=True)]
        return pack_segments(
            packer, op.bias, [b.reshape(b.shape[0] * b.shape[1], -1) for b in by_column],
            blocks_per_group=count, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
        )  # fmt: skip

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """Compiled once for each width and number of segments, and each size of a register tile."""
        assert isinstance(layer.op, Conv)
        width, segments = layer.output.width, segments_per_channel(layer.op.window)
        program.instances.add(f"COLUMNS_KERNEL({width}, {segments})")
        program.register_tiles(f"COLUMNS_{width}_{segments}", tiling, layer.output, step=max(1, width // UNIT))
        return f"conv_columns_{width}_{segments}"


def even_block(channels: int, most: int) -> int:
    """Channels of a block, so that blocks of at most `most` are of nearly equal size."""
    return math.ceil(channels / math.ceil(channels / max(1, min(channels, most))))


def segments_per_channel(window: Window) -> int:
    """Segments of an output channel: at stride 2 the columns that are not shifted share one."""
    return 3 if window.strides == (1, 1) else 2


KERNEL = ConvColumns()
