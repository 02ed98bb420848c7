"""Kernel `sparse` of matrix products: the nonzeros of each row are stored."""

from __future__ import annotations

from typing import ClassVar

from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.kernel import Family, Options
from robust_edge_exporters.native.kernels.linear_dense import LinearKernel
from robust_edge_exporters.native.operators.linear import Linear
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

INDEXED = 4.0  # time of an indexed product, in products of a dense row


class LinearSparse(LinearKernel):
    """Nonzeros are stored in one segment per output."""

    name = "sparse"
    family: ClassVar[Family | None] = "sparse"

    def suits(self, op: Linear, source: Shape, output: Shape, options: Options) -> bool:
        """Matrix products with at most as many inputs as 16-bit indices can address."""
        return source.channels <= OFFSETS

    def cost(self, op: Linear, output: Shape) -> float:
        """Estimated time per row, nonzeros only."""
        return INDEXED * op.density

    def pack(self, packer: Packer, op: Linear, tiling: None) -> Sections:
        """Segments in the order of outputs."""
        return pack_segments(packer, op.bias, [op.weight], blocks_per_group=1, channel_offset=1, tap_offsets=(0,))


KERNEL = LinearSparse()
