"""Kernel `taps`: convolutions of small planes. Input is read in place, and one sum per tap is shifted."""

from __future__ import annotations

from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import UNIT, Shape, layout, whole_units
from robust_edge_exporters.native.kernel import Options
from robust_edge_exporters.native.kernels.conv_strips import CHANNELS_IN_PLACE, plain
from robust_edge_exporters.native.kernels.convolution import LENGTH_MULTIPLE, TAPS_MAX, SparseConvKernel, blocks_of
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

TAP_UNITS = c_constant("conv_taps.h", "TAP_UNITS")  # units of a plane
SHORTEST = 4  # mean entries of a segment for which shifting its sums is worth it
SPLIT_FLOATS = 32768  # of a block's phases
FAR_COST = 1.1  # of reading all channels for each output channel, in times of reading them in blocks


class ConvTaps(SparseConvKernel):
    """Nonzeros are stored in one segment per output channel and tap."""

    name = "taps"

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """Output planes of up to four units, of exactly the input size divided by the stride, and long segments."""
        length = op.density * op.weight.shape[1]
        small = output.pixels <= TAP_UNITS * UNIT and op.window.reaches_only_inside(output)
        one_phase = op.window.strides == (2, 2) and len(op.window.shifts) == 1  # `sparse` packs no more than this one
        packed = one_phase and output.pixels > UNIT
        return op.window.divides(source, output) and op.groups == 1 and length >= SHORTEST and small and not packed

    def cost(self, op: Conv, output: Shape) -> float:
        """Estimated time; more for 1x1 convolutions of many channels, of which `strips` reads blocks."""
        far = plain(op.window) and op.weight.shape[1] >= CHANNELS_IN_PLACE and output.pixels > UNIT
        return (FAR_COST if far else 1) * super().cost(op, output)

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of whole planes; a block has as many channels as 16-bit offsets or the scratch memory allow."""
        shifts = op.window.shifts
        floats, split = whole_units(output.pixels), op.window.strides == (2, 2)
        channel = 4 * floats if split else layout(source).pitch
        assert output.pixels > UNIT or len(shifts) <= TAPS_MAX
        block = min(op.weight.shape[1], (SPLIT_FLOATS if split else OFFSETS) // channel)
        return Tiling(
            output.height, 0, 1, block, shifts, floats,
            whole_plane=True, masked=len(shifts) > 1,
            tap_offsets=tuple(split * floats * (dy % 2 * 2 + dx % 2) for dy, dx in shifts),
            channel_offset=channel, scratch_floats=(len(shifts) + 2) * TAP_UNITS * UNIT + split * block * channel,
        )  # fmt: skip

    def pack(self, packer: Packer, op: Conv, tiling: Tiling) -> Sections:
        """Segments in the order block, output channel, tap; within a segment by channel, padded to whole fours."""
        blocks, count = blocks_of(op, tiling)
        return pack_segments(
            packer, op.bias,
            [b.reshape(*b.shape[:2], -1).transpose(0, 2, 1).reshape(-1, b.shape[1]) for b in blocks],
            blocks_per_group=count, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
            by_tap=True, multiple=LENGTH_MULTIPLE,
        )  # fmt: skip


KERNEL = ConvTaps()
