"""Kernel `depthwise`: depthwise convolutions that read their input in place."""

from __future__ import annotations

from typing import ClassVar

from robust_edge_exporters.native.geometry import UNIT, Shape, layout, whole_units
from robust_edge_exporters.native.kernel import Family, Options
from robust_edge_exporters.native.kernels.convolution import TAPS_MAX, SparseConvKernel
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.tiling import Tiling

# Pixels of a plane up to which it is faster than the kernel `depthwise_rows`: at stride 1; at stride 2, where rows are
# whole vectors or parts of one; and at stride 2 where a plane is split into its phases.
MASKED_PIXELS, STRIDED_PIXELS, SPLIT_PIXELS = 1024, 256, 64


class ConvDepthwise(SparseConvKernel):
    """Nonzeros are stored in one segment per channel; offsets are the indices of the taps."""

    name = "depthwise"
    family: ClassVar[Family | None] = None

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """One channel per group, an output of exactly the input size divided by the stride, and small planes."""
        window = op.window
        single = op.groups == source.channels == output.channels and op.weight[0, 0].size <= TAPS_MAX
        most = STRIDED_PIXELS if output.width in (UNIT // 4, UNIT // 2, UNIT) else SPLIT_PIXELS
        small = output.pixels <= (MASKED_PIXELS if window.strides == (1, 1) else most)
        return window.divides(source, output) and single and small and window.reaches_only_inside(output)

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of whole planes; the scratch memory holds the stride phases of one plane, where it is split."""
        shifts, floats = op.window.shifts, whole_units(output.pixels)
        return Tiling(
            output.height, 0, 1, 1, shifts, floats,
            whole_plane=True, masked=True, tap_offsets=tuple(range(len(shifts))), channel_offset=layout(source).pitch,
            scratch_floats=6 * floats + 2 * UNIT,
        )  # fmt: skip


KERNEL = ConvDepthwise()
