"""Kernel `sparse` of matrices: the nonzeros of each row."""

from __future__ import annotations

from typing import ClassVar

from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.kernel import Family, Options
from robust_edge_exporters.native.kernels.linear_dense import LinearKernel
from robust_edge_exporters.native.operators.linear import Linear
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

INDEXED = 4.0  # time of an indexed product, in products of a dense row


class LinearSparse(LinearKernel):
    """A segment for each output."""

    name = "sparse"
    family: ClassVar[Family | None] = "sparse"

    def suits(self, op: Linear, source: Shape, output: Shape, options: Options) -> bool:
        """Rows whose indices fit 16 bits."""
        return source.channels <= OFFSETS

    def cost(self, op: Linear, output: Shape) -> float:
        """Of the nonzeros of a row."""
        return INDEXED * op.density

    def pack(self, packer: Packer, op: Linear, tiling: None) -> Sections:
        """Segments by output."""
        return pack_segments(packer, op.bias, [op.weight], blocks_per_group=1, channel_offset=1, tap_offsets=(0,))


KERNEL = LinearSparse()
