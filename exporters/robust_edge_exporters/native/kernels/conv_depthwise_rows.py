"""Kernel `depthwise_rows`: depthwise convolutions of planes of any size that read their rows in place."""

from __future__ import annotations

from typing import ClassVar

from robust_edge_exporters.native.geometry import Shape, layout, whole_units
from robust_edge_exporters.native.kernel import Family, Options
from robust_edge_exporters.native.kernels.convolution import GUARD_FLOATS, TAPS_MAX, SparseConvKernel
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.tiling import Tiling


class ConvDepthwiseRows(SparseConvKernel):
    """Nonzeros are stored in one segment per channel; offsets are the indices of the taps."""

    name = "depthwise_rows"
    family: ClassVar[Family | None] = None

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """One channel per group, at stride 1 or 2."""
        single = op.groups == source.channels == output.channels and op.weight[0, 0].size <= TAPS_MAX
        near = all(abs(dx) < GUARD_FLOATS // 4 for _, dx in op.window.shifts)
        return single and near and op.window.strides in ((1, 1), (2, 2))

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of whole planes; masks of one row for each tap."""
        shifts = op.window.shifts
        return Tiling(
            output.height, 0, 1, 1, shifts, whole_units(output.width),
            whole_plane=False, masked=True, tap_offsets=tuple(range(len(shifts))), channel_offset=layout(source).pitch,
            scratch_floats=0,
        )  # fmt: skip


KERNEL = ConvDepthwiseRows()
